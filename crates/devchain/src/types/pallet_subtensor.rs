//! The pallet of subnets: calls, events, errors, and the records that its runtime calls answer.

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
        #[codec(index = 52)]
        CommitRevealDisabled,
        #[codec(index = 53)]
        CommitRevealEnabled,
        #[codec(index = 74)]
        MechanismDoesNotExist,
        #[codec(index = 76)]
        SubnetNotExists,
        #[codec(index = 77)]
        TooManyUnrevealedCommits,
        #[codec(index = 81)]
        CommittingWeightsTooFast,
        #[codec(index = 90)]
        IncorrectCommitRevealVersion,
    }

    impl From<Error> for DispatchError {
        fn from(error: Error) -> Self {
            Self::Module(ModuleError { index: INDEX, error: [error.encode()[0], 0, 0, 0] })
        }
    }
}

pub(crate) mod rpc_info {
    pub(crate) mod metagraph {
        use parity_scale_codec::{Compact, Decode, Encode};
        use scale_info::TypeInfo;

        use crate::types::{
            AccountId32, AlphaBalance, NetUid, PerU16, TaoBalance, pallet_subtensor::pallet::AxonInfo,
            substrate_fixed::FixedI128,
        };

        /// A subnet at one block: scalars first, then one column per property, all in the order of uids.
        #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
        pub(crate) struct Metagraph {
            #[codec(compact)]
            pub(crate) netuid: NetUid,
            pub(crate) name: Vec<Compact<u8>>,
            pub(crate) symbol: Vec<Compact<u8>>,
            pub(crate) identity: Option<SubnetIdentityV3>,
            pub(crate) network_registered_at: Compact<u64>,
            pub(crate) owner_hotkey: AccountId32,
            pub(crate) owner_coldkey: AccountId32,
            pub(crate) block: Compact<u64>,
            pub(crate) tempo: Compact<u16>,
            pub(crate) last_step: Compact<u64>,
            pub(crate) blocks_since_last_step: Compact<u64>,
            pub(crate) subnet_emission: Compact<u64>,
            pub(crate) alpha_in: Compact<AlphaBalance>,
            pub(crate) alpha_out: Compact<AlphaBalance>,
            pub(crate) tao_in: Compact<TaoBalance>,
            pub(crate) alpha_out_emission: Compact<AlphaBalance>,
            pub(crate) alpha_in_emission: Compact<AlphaBalance>,
            pub(crate) tao_in_emission: Compact<TaoBalance>,
            pub(crate) pending_alpha_emission: Compact<AlphaBalance>,
            pub(crate) pending_root_emission: Compact<TaoBalance>,
            pub(crate) subnet_volume: Compact<u128>,
            pub(crate) moving_price: FixedI128,
            pub(crate) rho: Compact<u16>,
            pub(crate) kappa: Compact<u16>,
            pub(crate) min_allowed_weights: Compact<u16>,
            pub(crate) max_weights_limit: Compact<u16>,
            pub(crate) weights_version: Compact<u64>,
            pub(crate) weights_rate_limit: Compact<u64>,
            pub(crate) activity_cutoff: Compact<u64>,
            pub(crate) max_validators: Compact<u16>,
            pub(crate) num_uids: Compact<u16>,
            pub(crate) max_uids: Compact<u16>,
            pub(crate) burn: Compact<TaoBalance>,
            pub(crate) difficulty: Compact<u64>,
            pub(crate) registration_allowed: bool,
            pub(crate) pow_registration_allowed: bool,
            pub(crate) immunity_period: Compact<u16>,
            pub(crate) min_difficulty: Compact<u64>,
            pub(crate) max_difficulty: Compact<u64>,
            pub(crate) min_burn: Compact<TaoBalance>,
            pub(crate) max_burn: Compact<TaoBalance>,
            pub(crate) adjustment_alpha: Compact<u64>,
            pub(crate) adjustment_interval: Compact<u16>,
            pub(crate) target_regs_per_interval: Compact<u16>,
            pub(crate) max_regs_per_block: Compact<u16>,
            pub(crate) serving_rate_limit: Compact<u64>,
            pub(crate) commit_reveal_weights_enabled: bool,
            pub(crate) commit_reveal_period: Compact<u64>,
            pub(crate) liquid_alpha_enabled: bool,
            pub(crate) alpha_high: Compact<u16>,
            pub(crate) alpha_low: Compact<u16>,
            pub(crate) bonds_moving_avg: Compact<u64>,
            pub(crate) hotkeys: Vec<AccountId32>,
            pub(crate) coldkeys: Vec<AccountId32>,
            pub(crate) identities: Vec<Option<ChainIdentityV2>>,
            pub(crate) axons: Vec<AxonInfo>,
            pub(crate) active: Vec<bool>,
            pub(crate) validator_permit: Vec<bool>,
            pub(crate) pruning_score: Vec<Compact<u16>>,
            pub(crate) last_update: Vec<Compact<u64>>,
            pub(crate) emission: Vec<Compact<AlphaBalance>>,
            pub(crate) dividends: Vec<Compact<PerU16>>,
            pub(crate) incentives: Vec<Compact<PerU16>>,
            pub(crate) consensus: Vec<Compact<PerU16>>,
            pub(crate) trust: Vec<Compact<PerU16>>,
            pub(crate) rank: Vec<Compact<u16>>,
            pub(crate) block_at_registration: Vec<Compact<u64>>,
            pub(crate) alpha_stake: Vec<Compact<AlphaBalance>>,
            pub(crate) tao_stake: Vec<Compact<TaoBalance>>,
            pub(crate) total_stake: Vec<Compact<TaoBalance>>,
            pub(crate) tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)>,
            pub(crate) alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)>,
            pub(crate) collateral_locked: Vec<Compact<AlphaBalance>>,
            pub(crate) collateral_min: Vec<Compact<AlphaBalance>>,
            pub(crate) collateral_earned: Vec<Compact<AlphaBalance>>,
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
    }
}
