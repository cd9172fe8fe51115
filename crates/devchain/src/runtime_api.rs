//! The table of runtime calls: name, arguments and answer for the metadata, and the function that answers. Everything is
//! read from the state of the block that the client names.

use parity_scale_codec::{Compact, Decode, Encode, Error as CodecError};
use scale_info::{MetaType, TypeInfo, meta_type};

use crate::{
    chain, epoch, metadata, runtime,
    state::View,
    storage,
    types::{
        AccountId32, AlphaBalance, MechId, NetUid, NetUidStorageIndex, PerU16, TaoBalance,
        pallet_subtensor::rpc_info::{
            metagraph::{Metagraph, SelectiveMetagraph},
            neuron_info::{NeuronInfo, NeuronInfoLite},
            show_subnet::SubnetState,
            subnet_info::{SubnetHyperparams, SubnetHyperparamsV2},
        },
        pallet_transaction_payment::types::RuntimeDispatchInfo,
        sp_core::OpaqueMetadata,
        sp_runtime::generic::unchecked_extrinsic::UncheckedExtrinsic,
        substrate_fixed::FixedI128,
    },
};

/// What a runtime call may read.
pub(crate) struct Context<'a> {
    /// The state at the block that was named.
    pub(crate) view: View<'a>,
    /// The encoded metadata.
    pub(crate) metadata: &'a [u8],
}

/// One row of the table.
pub(crate) struct Method {
    /// The interface, as `SubnetInfoRuntimeApi`.
    pub(crate) api: &'static str,
    /// The function within it.
    pub(crate) name: &'static str,
    pub(crate) inputs: Vec<(&'static str, MetaType)>,
    pub(crate) output: MetaType,
    answer: Box<Answer>,
}

/// From the encoded arguments to the encoded answer.
type Answer = dyn Fn(&Context<'_>, &[u8]) -> Result<Vec<u8>, CodecError> + Send + Sync;

impl Method {
    fn new<I: Inputs, O: Encode + TypeInfo + 'static>(
        api: &'static str,
        name: &'static str,
        names: &[&'static str],
        answer: fn(&Context<'_>, I) -> O,
    ) -> Self {
        Self {
            api,
            name,
            inputs: names.iter().copied().zip(I::types()).collect(),
            output: meta_type::<O>(),
            answer: Box::new(move |context, mut arguments| Ok(answer(context, I::decode(&mut arguments)?).encode())),
        }
    }

    /// Whether `call` names this method, as in `Core_version`.
    pub(crate) fn is(&self, call: &str) -> bool {
        call.strip_prefix(self.api).and_then(|rest| rest.strip_prefix('_')) == Some(self.name)
    }

    /// Answers the encoded arguments.
    pub(crate) fn answer(&self, context: &Context<'_>, arguments: &[u8]) -> Result<Vec<u8>, CodecError> {
        (self.answer)(context, arguments)
    }
}

/// The arguments of a runtime call.
trait Inputs: Decode + 'static {
    fn types() -> Vec<MetaType>;
}

impl Inputs for () {
    fn types() -> Vec<MetaType> {
        Vec::new()
    }
}

impl<A: Decode + TypeInfo + 'static> Inputs for (A,) {
    fn types() -> Vec<MetaType> {
        vec![meta_type::<A>()]
    }
}

impl<A: Decode + TypeInfo + 'static, B: Decode + TypeInfo + 'static> Inputs for (A, B) {
    fn types() -> Vec<MetaType> {
        vec![meta_type::<A>(), meta_type::<B>()]
    }
}

impl<A, B, C> Inputs for (A, B, C)
where
    A: Decode + TypeInfo + 'static,
    B: Decode + TypeInfo + 'static,
    C: Decode + TypeInfo + 'static,
{
    fn types() -> Vec<MetaType> {
        vec![meta_type::<A>(), meta_type::<B>(), meta_type::<C>()]
    }
}

/// Every runtime call, interface by interface.
pub(crate) fn methods() -> Vec<Method> {
    vec![
        Method::new("Core", "version", &[], |_, ()| runtime::version()),
        Method::new("Metadata", "metadata_at_version", &["version"], |context, (version,): (u32,)| {
            (version == metadata::VERSION).then(|| OpaqueMetadata(context.metadata.to_vec()))
        }),
        Method::new("Metadata", "metadata_versions", &[], |_, ()| vec![metadata::VERSION]),
        Method::new("AccountNonceApi", "account_nonce", &["account"], |context, (account,): (AccountId32,)| {
            context.view.get(&storage::Account, account).nonce
        }),
        Method::new("TransactionPaymentApi", "query_info", &["uxt", "len"], |_, (_, _): (UncheckedExtrinsic, u32)| {
            RuntimeDispatchInfo::FREE
        }),
        Method::new(
            "NeuronInfoRuntimeApi",
            "get_neuron",
            &["netuid", "uid"],
            |context, (netuid, uid): (NetUid, u16)| {
                let weights = context.view.get(&storage::Weights, (NetUidStorageIndex::from(netuid), uid));
                let weights = weights.into_iter().map(|(uid, value)| (Compact(uid), Compact(value))).collect();
                NeuronInfo::of(&whole(context.view, netuid)?, uid, weights, Vec::new())
            },
        ),
        Method::new("NeuronInfoRuntimeApi", "get_neurons_lite", &["netuid"], |context, (netuid,): (NetUid,)| {
            let graph = whole(context.view, netuid);
            let neuron = |graph: &Metagraph| (0..=u16::MAX).map_while(|uid| NeuronInfoLite::of(graph, uid)).collect();
            graph.as_ref().map_or_else(Vec::new, neuron)
        }),
        Method::new("SubnetInfoRuntimeApi", "get_metagraph", &["netuid"], |context, (netuid,): (NetUid,)| {
            whole(context.view, netuid)
        }),
        Method::new(
            "SubnetInfoRuntimeApi",
            "get_selective_mechagraph",
            &["netuid", "subid", "metagraph_indexes"],
            |context, (netuid, mechanism, wanted): (NetUid, MechId, Vec<u16>)| {
                let graph = whole(context.view, netuid).filter(|_| mechanism == MechId(0));
                graph.map(|graph| SelectiveMetagraph::of(graph, &wanted))
            },
        ),
        Method::new(
            "SubnetInfoRuntimeApi",
            "get_selective_metagraph",
            &["netuid", "metagraph_indexes"],
            |context, (netuid, wanted): (NetUid, Vec<u16>)| {
                whole(context.view, netuid).map(|graph| SelectiveMetagraph::of(graph, &wanted))
            },
        ),
        Method::new("SubnetInfoRuntimeApi", "get_subnet_hyperparams", &["netuid"], |context, (netuid,): (NetUid,)| {
            whole(context.view, netuid).as_ref().map(SubnetHyperparams::of)
        }),
        Method::new(
            "SubnetInfoRuntimeApi",
            "get_subnet_hyperparams_v2",
            &["netuid"],
            |context, (netuid,): (NetUid,)| whole(context.view, netuid).as_ref().map(SubnetHyperparamsV2::of),
        ),
        Method::new("SubnetInfoRuntimeApi", "get_subnet_state", &["netuid"], |context, (netuid,): (NetUid,)| {
            whole(context.view, netuid).map(SubnetState::of)
        }),
    ]
}

/// The subnet's columns and what its weights agree on; `None` if there is no such subnet.
fn whole(view: View<'_>, netuid: NetUid) -> Option<Metagraph> {
    view.get(&storage::NetworksAdded, netuid).then(|| {
        let consensus = chain::agreed(view, netuid).into_iter();
        let consensus = consensus.map(|share| Compact(PerU16(share))).collect();
        Metagraph { consensus, ..metagraph(view, netuid) }
    })
}

/// The subnet's columns. What the development chain does not compute is zero or empty.
pub(crate) fn metagraph(view: View<'_>, netuid: NetUid) -> Metagraph {
    let neurons = view.get(&storage::SubnetworkN, netuid);
    let hotkeys: Vec<AccountId32> = (0..neurons).map(|uid| view.get(&storage::Keys, (netuid, uid))).collect();
    let stakes: Vec<AlphaBalance> =
        hotkeys.iter().map(|hotkey| view.get(&storage::TotalHotkeyAlpha, (*hotkey, netuid))).collect();
    let last_update = view.get(&storage::LastUpdate, NetUidStorageIndex::from(netuid));

    Metagraph {
        netuid,
        name: text("devchain"),
        symbol: text("D"),
        identity: None,
        network_registered_at: Compact(0),
        owner_hotkey: view.get(&storage::SubnetOwnerHotkey, netuid),
        owner_coldkey: view.get(&storage::SubnetOwner, netuid),
        block: Compact(view.block().into()),
        tempo: Compact(view.get(&storage::Tempo, netuid)),
        last_step: Compact(view.get(&storage::LastEpochBlock, netuid)),
        blocks_since_last_step: Compact(view.get(&storage::BlocksSinceLastStep, netuid)),
        subnet_emission: Compact(0),
        alpha_in: Compact(AlphaBalance(0)),
        alpha_out: Compact(AlphaBalance(0)),
        tao_in: Compact(TaoBalance(0)),
        alpha_out_emission: Compact(AlphaBalance(0)),
        alpha_in_emission: Compact(AlphaBalance(0)),
        tao_in_emission: Compact(TaoBalance(0)),
        pending_alpha_emission: Compact(AlphaBalance(0)),
        pending_root_emission: Compact(TaoBalance(0)),
        subnet_volume: Compact(0),
        moving_price: FixedI128::default(),
        rho: Compact(10),
        kappa: Compact(u16::MAX / 2),
        min_allowed_weights: Compact(view.get(&storage::MinAllowedWeights, netuid)),
        max_weights_limit: Compact(view.get(&storage::MaxWeightsLimit, netuid)),
        weights_version: Compact(view.get(&storage::WeightsVersionKey, netuid)),
        weights_rate_limit: Compact(view.get(&storage::WeightsSetRateLimit, netuid)),
        activity_cutoff: Compact(epoch::activity_cutoff(view, netuid)),
        max_validators: Compact(epoch::VALIDATORS as u16),
        num_uids: Compact(neurons),
        max_uids: Compact(view.get(&storage::MaxAllowedUids, netuid)),
        burn: Compact(view.get(&storage::Burn, netuid)),
        difficulty: Compact(0),
        registration_allowed: true,
        pow_registration_allowed: false,
        immunity_period: Compact(view.get(&storage::ImmunityPeriod, netuid)),
        min_difficulty: Compact(0),
        max_difficulty: Compact(0),
        min_burn: Compact(TaoBalance(0)),
        max_burn: Compact(TaoBalance(0)),
        adjustment_alpha: Compact(0),
        adjustment_interval: Compact(0),
        target_regs_per_interval: Compact(0),
        max_regs_per_block: Compact(0),
        serving_rate_limit: Compact(view.get(&storage::ServingRateLimit, netuid)),
        commit_reveal_weights_enabled: view.get(&storage::CommitRevealWeightsEnabled, netuid),
        commit_reveal_period: Compact(view.get(&storage::RevealPeriodEpochs, netuid)),
        liquid_alpha_enabled: false,
        alpha_high: Compact(0),
        alpha_low: Compact(0),
        bonds_moving_avg: Compact(0),
        coldkeys: hotkeys.iter().map(|hotkey| view.get(&storage::Owner, *hotkey)).collect(),
        identities: column(neurons, || None),
        axons: hotkeys.iter().map(|hotkey| view.find(&storage::Axons, (netuid, *hotkey)).unwrap_or_default()).collect(),
        hotkeys,
        active: view.get(&storage::Active, netuid),
        validator_permit: view.get(&storage::ValidatorPermit, netuid),
        pruning_score: column(neurons, || Compact(0)),
        last_update: last_update.into_iter().map(Compact).collect(),
        emission: column(neurons, || Compact(AlphaBalance(0))),
        dividends: column(neurons, || Compact(PerU16(0))),
        incentives: column(neurons, || Compact(PerU16(0))),
        consensus: column(neurons, || Compact(PerU16(0))),
        trust: column(neurons, || Compact(PerU16(0))),
        rank: column(neurons, || Compact(0)),
        block_at_registration: (0..neurons)
            .map(|uid| Compact(view.get(&storage::BlockAtRegistration, (netuid, uid))))
            .collect(),
        alpha_stake: stakes.iter().copied().map(Compact).collect(),
        tao_stake: column(neurons, || Compact(TaoBalance(0))),
        // There is no root stake, hence nothing but the subnet's own token weighs.
        total_stake: stakes.iter().map(|stake| Compact(TaoBalance(stake.0))).collect(),
        tao_dividends_per_hotkey: Vec::new(),
        alpha_dividends_per_hotkey: Vec::new(),
        collateral_locked: column(neurons, || Compact(AlphaBalance(0))),
        collateral_min: column(neurons, || Compact(AlphaBalance(0))),
        collateral_earned: column(neurons, || Compact(AlphaBalance(0))),
    }
}

fn text(text: &str) -> Vec<Compact<u8>> {
    text.bytes().map(Compact).collect()
}

/// A column of the same value for each neuron.
fn column<T>(neurons: u16, value: impl Fn() -> T) -> Vec<T> {
    (0..neurons).map(|_| value()).collect()
}
