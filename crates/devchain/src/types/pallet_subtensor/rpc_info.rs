//! The records that the pallet's runtime calls answer. All of them are views of one: the whole metagraph.

pub(crate) mod metagraph {
    use parity_scale_codec::{Compact, Decode, Encode};
    use scale_info::TypeInfo;

    use crate::types::{
        AccountId32, AlphaBalance, NetUid, PerU16, TaoBalance,
        pallet_subtensor::pallet::{AxonInfo, ChainIdentityV2, SubnetIdentityV3},
        substrate_fixed::FixedI128,
    };

    /// Lists the fields once for both forms: those before and those behind what only a selection can hold.
    macro_rules! metagraph {
        ({ $($early:ident: $early_type:ty,)+ } { $($late:ident: $late_type:ty,)+ }) => {
            /// A subnet at one block: scalars first, then one column per property, all in the order of uids.
            #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
            pub(crate) struct Metagraph {
                #[codec(compact)]
                pub(crate) netuid: NetUid,
                $(pub(crate) $early: $early_type,)+
                $(pub(crate) $late: $late_type,)+
            }

            /// The parts of a subnet that a client asked for.
            #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
            pub(crate) struct SelectiveMetagraph {
                #[codec(compact)]
                netuid: NetUid,
                $($early: Option<$early_type>,)+
                validators: Option<Vec<Compact<u16>>>,
                commitments: Option<Vec<(AccountId32, Vec<Compact<u8>>)>>,
                $($late: Option<$late_type>,)+
            }

            impl SelectiveMetagraph {
                /// The parts of these numbers, counted from the name as 1 in the order of the fields.
                pub(crate) fn of(whole: Metagraph, wanted: &[u16]) -> Self {
                    let mut number = 0;
                    let mut is_wanted = || {
                        number += 1;
                        wanted.contains(&number)
                    };
                    Self {
                        netuid: whole.netuid,
                        $($early: is_wanted().then_some(whole.$early),)+
                        validators: is_wanted().then(Vec::new),
                        commitments: is_wanted().then(Vec::new),
                        $($late: is_wanted().then_some(whole.$late),)+
                    }
                }
            }
        };
    }

    metagraph! {
        {
            name: Vec<Compact<u8>>,
            symbol: Vec<Compact<u8>>,
            identity: Option<SubnetIdentityV3>,
            network_registered_at: Compact<u64>,
            owner_hotkey: AccountId32,
            owner_coldkey: AccountId32,
            block: Compact<u64>,
            tempo: Compact<u16>,
            last_step: Compact<u64>,
            blocks_since_last_step: Compact<u64>,
            subnet_emission: Compact<u64>,
            alpha_in: Compact<AlphaBalance>,
            alpha_out: Compact<AlphaBalance>,
            tao_in: Compact<TaoBalance>,
            alpha_out_emission: Compact<AlphaBalance>,
            alpha_in_emission: Compact<AlphaBalance>,
            tao_in_emission: Compact<TaoBalance>,
            pending_alpha_emission: Compact<AlphaBalance>,
            pending_root_emission: Compact<TaoBalance>,
            subnet_volume: Compact<u128>,
            moving_price: FixedI128,
            rho: Compact<u16>,
            kappa: Compact<u16>,
            min_allowed_weights: Compact<u16>,
            max_weights_limit: Compact<u16>,
            weights_version: Compact<u64>,
            weights_rate_limit: Compact<u64>,
            activity_cutoff: Compact<u64>,
            max_validators: Compact<u16>,
            num_uids: Compact<u16>,
            max_uids: Compact<u16>,
            burn: Compact<TaoBalance>,
            difficulty: Compact<u64>,
            registration_allowed: bool,
            pow_registration_allowed: bool,
            immunity_period: Compact<u16>,
            min_difficulty: Compact<u64>,
            max_difficulty: Compact<u64>,
            min_burn: Compact<TaoBalance>,
            max_burn: Compact<TaoBalance>,
            adjustment_alpha: Compact<u64>,
            adjustment_interval: Compact<u16>,
            target_regs_per_interval: Compact<u16>,
            max_regs_per_block: Compact<u16>,
            serving_rate_limit: Compact<u64>,
            commit_reveal_weights_enabled: bool,
            commit_reveal_period: Compact<u64>,
            liquid_alpha_enabled: bool,
            alpha_high: Compact<u16>,
            alpha_low: Compact<u16>,
            bonds_moving_avg: Compact<u64>,
            hotkeys: Vec<AccountId32>,
            coldkeys: Vec<AccountId32>,
            identities: Vec<Option<ChainIdentityV2>>,
            axons: Vec<AxonInfo>,
            active: Vec<bool>,
            validator_permit: Vec<bool>,
            pruning_score: Vec<Compact<u16>>,
            last_update: Vec<Compact<u64>>,
            emission: Vec<Compact<AlphaBalance>>,
            dividends: Vec<Compact<PerU16>>,
            incentives: Vec<Compact<PerU16>>,
            consensus: Vec<Compact<PerU16>>,
            trust: Vec<Compact<PerU16>>,
            rank: Vec<Compact<u16>>,
            block_at_registration: Vec<Compact<u64>>,
            alpha_stake: Vec<Compact<AlphaBalance>>,
            tao_stake: Vec<Compact<TaoBalance>>,
            total_stake: Vec<Compact<TaoBalance>>,
            tao_dividends_per_hotkey: Vec<(AccountId32, Compact<TaoBalance>)>,
            alpha_dividends_per_hotkey: Vec<(AccountId32, Compact<AlphaBalance>)>,
        }
        {
            collateral_locked: Vec<Compact<AlphaBalance>>,
            collateral_min: Vec<Compact<AlphaBalance>>,
            collateral_earned: Vec<Compact<AlphaBalance>>,
        }
    }
}

pub(crate) mod neuron_info {
    use parity_scale_codec::{Compact, Decode, Encode};
    use scale_info::TypeInfo;

    use super::metagraph::Metagraph;
    use crate::types::{
        AccountId32, AlphaBalance, NetUid, PerU16,
        pallet_subtensor::pallet::{AxonInfo, PrometheusInfo},
    };

    /// Lists the fields once for both forms; the longer one also holds weights and bonds.
    macro_rules! neuron_info {
        ($($(#[$doc:meta])* $name:ident { $($extra:ident: $extra_type:ty),* })+) => {$(
            $(#[$doc])*
            #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
            pub(crate) struct $name {
                hotkey: AccountId32,
                coldkey: AccountId32,
                uid: Compact<u16>,
                netuid: Compact<NetUid>,
                active: bool,
                axon_info: AxonInfo,
                prometheus_info: PrometheusInfo,
                stake: Vec<(AccountId32, Compact<AlphaBalance>)>,
                rank: Compact<u16>,
                emission: Compact<AlphaBalance>,
                incentive: Compact<PerU16>,
                consensus: Compact<PerU16>,
                trust: Compact<PerU16>,
                validator_trust: Compact<PerU16>,
                dividends: Compact<PerU16>,
                last_update: Compact<u64>,
                validator_permit: bool,
                $($extra: $extra_type,)*
                pruning_score: Compact<u16>,
            }

            impl $name {
                /// The neuron of that uid; `None` beyond the last.
                pub(crate) fn of(graph: &Metagraph, uid: u16 $(, $extra: $extra_type)*) -> Option<Self> {
                    let row = usize::from(uid);
                    let (hotkey, coldkey) = (*graph.hotkeys.get(row)?, *graph.coldkeys.get(row)?);
                    Some(Self {
                        hotkey,
                        coldkey,
                        uid: Compact(uid),
                        netuid: Compact(graph.netuid),
                        active: *graph.active.get(row)?,
                        axon_info: *graph.axons.get(row)?,
                        prometheus_info: PrometheusInfo::default(),
                        stake: vec![(coldkey, *graph.alpha_stake.get(row)?)],
                        rank: *graph.rank.get(row)?,
                        emission: *graph.emission.get(row)?,
                        incentive: *graph.incentives.get(row)?,
                        consensus: *graph.consensus.get(row)?,
                        trust: *graph.trust.get(row)?,
                        validator_trust: Compact(PerU16(0)),
                        dividends: *graph.dividends.get(row)?,
                        last_update: *graph.last_update.get(row)?,
                        validator_permit: *graph.validator_permit.get(row)?,
                        $($extra,)*
                        pruning_score: *graph.pruning_score.get(row)?,
                    })
                }
            }
        )+};
    }

    neuron_info! {
        /// A neuron without its weights.
        NeuronInfoLite {}
        /// A neuron.
        NeuronInfo { weights: Vec<(Compact<u16>, Compact<u16>)>, bonds: Vec<(Compact<u16>, Compact<u16>)> }
    }
}

pub(crate) mod show_subnet {
    use parity_scale_codec::{Compact, Decode, Encode};
    use scale_info::TypeInfo;

    use super::metagraph::Metagraph;
    use crate::types::{AccountId32, AlphaBalance, NetUid, PerU16, TaoBalance};

    /// The columns of a subnet alone.
    #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
    pub(crate) struct SubnetState {
        netuid: Compact<NetUid>,
        hotkeys: Vec<AccountId32>,
        coldkeys: Vec<AccountId32>,
        active: Vec<bool>,
        validator_permit: Vec<bool>,
        pruning_score: Vec<Compact<u16>>,
        last_update: Vec<Compact<u64>>,
        emission: Vec<Compact<AlphaBalance>>,
        dividends: Vec<Compact<PerU16>>,
        incentives: Vec<Compact<PerU16>>,
        consensus: Vec<Compact<PerU16>>,
        trust: Vec<Compact<PerU16>>,
        rank: Vec<Compact<u16>>,
        block_at_registration: Vec<Compact<u64>>,
        alpha_stake: Vec<Compact<AlphaBalance>>,
        tao_stake: Vec<Compact<TaoBalance>>,
        total_stake: Vec<Compact<TaoBalance>>,
        emission_history: Vec<Vec<Compact<AlphaBalance>>>,
    }

    impl SubnetState {
        /// The columns of that subnet.
        pub(crate) fn of(graph: Metagraph) -> Self {
            Self {
                netuid: Compact(graph.netuid),
                hotkeys: graph.hotkeys,
                coldkeys: graph.coldkeys,
                active: graph.active,
                validator_permit: graph.validator_permit,
                pruning_score: graph.pruning_score,
                last_update: graph.last_update,
                emission: graph.emission,
                dividends: graph.dividends,
                incentives: graph.incentives,
                consensus: graph.consensus,
                trust: graph.trust,
                rank: graph.rank,
                block_at_registration: graph.block_at_registration,
                alpha_stake: graph.alpha_stake,
                tao_stake: graph.tao_stake,
                total_stake: graph.total_stake,
                emission_history: Vec::new(),
            }
        }
    }
}

pub(crate) mod subnet_info {
    use parity_scale_codec::{Compact, Decode, Encode};
    use scale_info::TypeInfo;

    use super::metagraph::Metagraph;
    use crate::types::{TaoBalance, substrate_fixed::FixedI64};

    /// Lists the rules once for both forms: the second adds some behind.
    macro_rules! hyperparams {
        ($($(#[$doc:meta])* $name:ident { $($extra:ident: $extra_type:ty = $value:expr),* })+) => {$(
            $(#[$doc])*
            #[derive(Clone, Debug, Decode, Encode, TypeInfo)]
            pub(crate) struct $name {
                rho: Compact<u16>,
                kappa: Compact<u16>,
                immunity_period: Compact<u16>,
                min_allowed_weights: Compact<u16>,
                max_weights_limit: Compact<u16>,
                tempo: Compact<u16>,
                min_difficulty: Compact<u64>,
                max_difficulty: Compact<u64>,
                weights_version: Compact<u64>,
                weights_rate_limit: Compact<u64>,
                adjustment_interval: Compact<u16>,
                activity_cutoff: Compact<u64>,
                registration_allowed: bool,
                target_regs_per_interval: Compact<u16>,
                min_burn: Compact<TaoBalance>,
                max_burn: Compact<TaoBalance>,
                bonds_moving_avg: Compact<u64>,
                max_regs_per_block: Compact<u16>,
                serving_rate_limit: Compact<u64>,
                max_validators: Compact<u16>,
                adjustment_alpha: Compact<u64>,
                difficulty: Compact<u64>,
                commit_reveal_period: Compact<u64>,
                commit_reveal_weights_enabled: bool,
                alpha_high: Compact<u16>,
                alpha_low: Compact<u16>,
                liquid_alpha_enabled: bool,
                $($extra: $extra_type,)*
            }

            impl $name {
                /// The rules of that subnet.
                pub(crate) fn of(graph: &Metagraph) -> Self {
                    Self {
                        rho: graph.rho,
                        kappa: graph.kappa,
                        immunity_period: graph.immunity_period,
                        min_allowed_weights: graph.min_allowed_weights,
                        max_weights_limit: graph.max_weights_limit,
                        tempo: graph.tempo,
                        min_difficulty: graph.min_difficulty,
                        max_difficulty: graph.max_difficulty,
                        weights_version: graph.weights_version,
                        weights_rate_limit: graph.weights_rate_limit,
                        adjustment_interval: graph.adjustment_interval,
                        activity_cutoff: graph.activity_cutoff,
                        registration_allowed: graph.registration_allowed,
                        target_regs_per_interval: graph.target_regs_per_interval,
                        min_burn: graph.min_burn,
                        max_burn: graph.max_burn,
                        bonds_moving_avg: graph.bonds_moving_avg,
                        max_regs_per_block: graph.max_regs_per_block,
                        serving_rate_limit: graph.serving_rate_limit,
                        max_validators: graph.max_validators,
                        adjustment_alpha: graph.adjustment_alpha,
                        difficulty: graph.difficulty,
                        commit_reveal_period: graph.commit_reveal_period,
                        commit_reveal_weights_enabled: graph.commit_reveal_weights_enabled,
                        alpha_high: graph.alpha_high,
                        alpha_low: graph.alpha_low,
                        liquid_alpha_enabled: graph.liquid_alpha_enabled,
                        $($extra: $value,)*
                    }
                }
            }
        )+};
    }

    hyperparams! {
        /// The rules of a subnet, as the first clients read them.
        SubnetHyperparams {}
        /// The rules of a subnet, with later ones, which have no effect here.
        SubnetHyperparamsV2 {
            alpha_sigmoid_steepness: FixedI64 = FixedI64::default(),
            yuma_version: Compact<u16> = Compact(3),
            subnet_is_active: bool = true,
            transfers_enabled: bool = true,
            bonds_reset_enabled: bool = false,
            user_liquidity_enabled: bool = false
        }
    }
}
