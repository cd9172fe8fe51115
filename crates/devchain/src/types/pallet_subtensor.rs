//! The pallet of subnets: calls, events, errors, and the records that its runtime calls answer.

pub(crate) mod rpc_info;

pub(crate) mod pallet {
    use parity_scale_codec::{Decode, Encode};
    use scale_info::TypeInfo;

    use crate::types::{AccountId32, BoundedVec, DispatchError, H256, MechId, ModuleError, NetUid, NetUidStorageIndex};

    /// The pallet's index in [`RuntimeCall`](crate::types::RuntimeCall) and its siblings.
    pub(crate) const INDEX: u8 = 7;

    /// Where a neuron serves.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, Eq, PartialEq, TypeInfo)]
    pub(crate) struct AxonInfo {
        pub(crate) block: u64,
        pub(crate) version: u32,
        pub(crate) ip: u128,
        pub(crate) port: u16,
        pub(crate) ip_type: u8,
        pub(crate) protocol: u8,
        pub(crate) placeholder1: u8,
        pub(crate) placeholder2: u8,
    }

    /// How a subnet's weights become emission. Here nothing is emitted, and who may set weights follows the first.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
    pub(crate) enum EpochConsensus {
        #[default]
        Yuma,
        Null,
    }

    /// Where a neuron would tell its metrics; none does here.
    #[derive(Clone, Copy, Debug, Decode, Default, Encode, TypeInfo)]
    pub(crate) struct PrometheusInfo {
        pub(crate) block: u64,
        pub(crate) version: u32,
        pub(crate) ip: u128,
        pub(crate) port: u16,
        pub(crate) ip_type: u8,
    }

    /// What a subnet says about itself; none does here.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct SubnetIdentityV3 {
        pub(crate) subnet_name: Vec<u8>,
        pub(crate) github_repo: Vec<u8>,
        pub(crate) subnet_contact: Vec<u8>,
        pub(crate) subnet_url: Vec<u8>,
        pub(crate) discord: Vec<u8>,
        pub(crate) description: Vec<u8>,
        pub(crate) logo_url: Vec<u8>,
        pub(crate) additional: Vec<u8>,
    }

    /// What an owner says about itself; none does here.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct ChainIdentityV2 {
        pub(crate) name: Vec<u8>,
        pub(crate) url: Vec<u8>,
        pub(crate) github_repo: Vec<u8>,
        pub(crate) image: Vec<u8>,
        pub(crate) discord: Vec<u8>,
        pub(crate) description: Vec<u8>,
        pub(crate) additional: Vec<u8>,
    }

    /// The calls of pallet `SubtensorModule` (chain spec 4.3).
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    #[expect(non_camel_case_types, reason = "a call's name in the metadata is its variant's")]
    pub(crate) enum Call {
        #[codec(index = 0)]
        set_weights { netuid: NetUid, dests: Vec<u16>, weights: Vec<u16>, version_key: u64 },
        #[codec(index = 4)]
        serve_axon {
            netuid: NetUid,
            version: u32,
            ip: u128,
            port: u16,
            ip_type: u8,
            protocol: u8,
            placeholder1: u8,
            placeholder2: u8,
        },
        #[codec(index = 7)]
        burned_register { netuid: NetUid, hotkey: AccountId32 },
        #[codec(index = 113)]
        commit_timelocked_weights { netuid: NetUid, commit: BoundedVec, reveal_round: u64, commit_reveal_version: u16 },
        #[codec(index = 118)]
        commit_timelocked_mechanism_weights {
            netuid: NetUid,
            mecid: MechId,
            commit: BoundedVec,
            reveal_round: u64,
            commit_reveal_version: u16,
        },
        #[codec(index = 119)]
        set_mechanism_weights { netuid: NetUid, mecid: MechId, dests: Vec<u16>, weights: Vec<u16>, version_key: u64 },
    }

    /// The events of pallet `SubtensorModule`.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) enum Event {
        /// A neuron's weights were stored.
        #[codec(index = 5)]
        WeightsSet(NetUidStorageIndex, u16),
        /// A hotkey got a uid.
        #[codec(index = 7)]
        NeuronRegistered(NetUid, u16, AccountId32),
        /// A neuron's address was stored.
        #[codec(index = 29)]
        AxonServed(NetUid, AccountId32),
        /// A hotkey committed to sealed weights: their hash, and the round that opens them.
        #[codec(index = 108)]
        TimelockedWeightsCommitted(AccountId32, NetUidStorageIndex, H256, u64),
        /// A hotkey's sealed weights were opened and stored.
        #[codec(index = 109)]
        TimelockedWeightsRevealed(NetUidStorageIndex, AccountId32),
    }

    /// The errors of pallet `SubtensorModule` that the development chain answers.
    #[derive(Clone, Copy, Debug, Decode, Encode, Eq, PartialEq, TypeInfo)]
    pub(crate) enum Error {
        #[codec(index = 1)]
        InvalidIpType,
        #[codec(index = 2)]
        InvalidIpAddress,
        #[codec(index = 3)]
        InvalidPort,
        #[codec(index = 4)]
        HotKeyNotRegisteredInSubNet,
        #[codec(index = 6)]
        HotKeyNotRegisteredInNetwork,
        #[codec(index = 7)]
        NonAssociatedColdKey,
        #[codec(index = 10)]
        NotEnoughStakeToSetWeights,
        #[codec(index = 12)]
        NotEnoughBalanceToStake,
        #[codec(index = 15)]
        NeuronNoValidatorPermit,
        #[codec(index = 16)]
        WeightVecNotEqualSize,
        #[codec(index = 17)]
        DuplicateUids,
        #[codec(index = 18)]
        UidVecContainInvalidOne,
        #[codec(index = 19)]
        WeightVecLengthIsLow,
        #[codec(index = 21)]
        HotKeyAlreadyRegisteredInSubNet,
        #[codec(index = 27)]
        MaxWeightExceeded,
        #[codec(index = 29)]
        SettingWeightsTooFast,
        #[codec(index = 30)]
        IncorrectWeightVersionKey,
        #[codec(index = 31)]
        ServingRateLimitExceeded,
        #[codec(index = 32)]
        UidsLengthExceedUidsInSubNet,
        #[codec(index = 48)]
        NoNeuronIdAvailable,
        #[codec(index = 53)]
        CommitRevealEnabled,
        #[codec(index = 54)]
        CommitRevealDisabled,
        #[codec(index = 74)]
        MechanismDoesNotExist,
        #[codec(index = 76)]
        SubnetNotExists,
        #[codec(index = 77)]
        TooManyUnrevealedCommits,
        #[codec(index = 81)]
        CommittingWeightsTooFast,
        #[codec(index = 111)]
        IncorrectCommitRevealVersion,
    }

    impl From<Error> for DispatchError {
        fn from(error: Error) -> Self {
            Self::Module(ModuleError { index: INDEX, error: [error.encode()[0], 0, 0, 0] })
        }
    }
}
