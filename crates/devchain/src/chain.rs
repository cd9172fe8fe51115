//! The chain as daemons hold it, answered by the chain itself with no wire between. Reads come from the newest final state, and
//! what is submitted is signed, checked and put into a block like everything that comes over the RPC.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use byteleap_chain::{
    Block, Chain, ChainError, Epoch, Head, Hotkey, Metagraph, Neuron, Receipt, Rules, Signer, WeightMatrix, Weights,
    check_axon, check_rate, check_weights, consensus, schedule::reveal_round, timelock::Commitment,
};
use parity_scale_codec::{Decode, Encode};

use crate::{
    devchain::DevChain,
    dispatch::axon,
    extrinsic,
    node::Node,
    pool::Status,
    runtime::SPEC_VERSION,
    runtime_api,
    state::View,
    storage,
    types::{
        AccountId32, BoundedVec, DispatchError, Era, H256, MechId, NetUid, NetUidStorageIndex, RuntimeCall,
        pallet_subtensor::pallet::{AxonInfo, Call, Error},
    },
};

/// Blocks in which a submitted extrinsic may be included.
const ERA_BLOCKS: u32 = 64;

#[async_trait]
impl Chain for DevChain {
    async fn head(&self) -> Result<Head, ChainError> {
        Ok(head(&self.node.read(), self.slot))
    }

    async fn next_block(&self, after: Block) -> Result<Head, ChainError> {
        let mut newest = self.node.read().follow_finalised();
        match newest.wait_for(|number| u64::from(*number) > after).await {
            Ok(_) => {}
            Err(_) => return Err(ChainError::Unreachable("the development chain has ended".into())),
        }
        self.head().await
    }

    async fn metagraph(&self, netuid: u16) -> Result<Metagraph, ChainError> {
        metagraph(self.node.read().final_state(), netuid)
    }

    async fn weight_matrix(&self, netuid: u16) -> Result<WeightMatrix, ChainError> {
        let node = self.node.read();
        let view = node.final_state();
        let Metagraph { block, neurons, .. } = metagraph(view, netuid)?;
        let rows = weight_rows(view, NetUid(netuid), &neurons);
        Ok(WeightMatrix { block, consensus: consensus(&neurons, &rows), rows })
    }

    async fn rules(&self, netuid: u16) -> Result<Rules, ChainError> {
        Ok(rules(self.node.read().final_state(), NetUid(netuid)))
    }

    async fn epoch(&self, netuid: u16) -> Result<Epoch, ChainError> {
        let node = self.node.read();
        let (view, netuid) = (node.final_state(), NetUid(netuid));
        let pending_at = view.get(&storage::PendingEpochAt, netuid);
        Ok(Epoch {
            index: view.get(&storage::SubnetEpochIndex, netuid),
            last_block: view.get(&storage::LastEpochBlock, netuid),
            pending_at: (pending_at > 0).then_some(pending_at),
            since_step: view.get(&storage::BlocksSinceLastStep, netuid),
        })
    }

    async fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, ChainError> {
        Ok(self.node.read().final_state().find(&storage::Uids, (NetUid(netuid), AccountId32(hotkey.0))))
    }

    async fn serve_axon(
        &self,
        netuid: u16,
        address: SocketAddr,
        version: u32,
        by: &dyn Signer,
    ) -> Result<Option<Receipt>, ChainError> {
        let hotkey = AccountId32(by.hotkey().0);
        {
            let node = self.node.read();
            let view = node.final_state();
            if view.find(&storage::Uids, (NetUid(netuid), hotkey)).is_none() {
                return Err(ChainError::NotRegistered(netuid));
            }
            if let Some(axon) = view.find(&storage::Axons, (NetUid(netuid), hotkey)) {
                if axon.version == version && socket_address(&axon) == Some(address) {
                    return Ok(None);
                }
                check_rate(axon.block, view.get(&storage::ServingRateLimit, NetUid(netuid)), view.block().into())?;
            }
        }
        check_axon(address)?;
        let AxonInfo { ip, port, ip_type, protocol, placeholder1, placeholder2, .. } = axon::at(address, version, 0);
        let netuid = NetUid(netuid);
        let call = Call::serve_axon { netuid, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
        self.submit(call, by).await.map(Some)
    }

    async fn set_weights(&self, netuid: u16, weights: &Weights, by: &dyn Signer) -> Result<Receipt, ChainError> {
        let (rules, head, head_ms, version) = {
            let node = self.node.read();
            let view = node.final_state();
            let rules = rules(view, NetUid(netuid));
            check_weights(weights, &by.hotkey(), &metagraph(view, netuid)?, &rules)?;
            let version = view.get(&storage::CommitRevealWeightsVersion, ());
            (rules, Block::from(view.block()), view.get(&storage::Now, ()), version)
        };
        if rules.commit_reveal {
            let (epoch, beacon) = (self.epoch(netuid).await?, Self::beacon());
            let round = reveal_round(&beacon, &rules, &epoch, (head, head_ms), self.slot)?;
            let commitment = Commitment::of(&by.hotkey(), weights).encode();
            let commit = beacon.seal(round, &commitment).map_err(|error| ChainError::Unsupported(error.to_string()))?;
            let call = Call::commit_timelocked_mechanism_weights {
                netuid: NetUid(netuid),
                mecid: MechId(0),
                commit: BoundedVec(commit),
                reveal_round: round,
                commit_reveal_version: version,
            };
            return Ok(Receipt { reveal_round: Some(round), ..self.submit(call, by).await? });
        }
        let call = Call::set_mechanism_weights {
            netuid: NetUid(netuid),
            mecid: MechId(0),
            dests: weights.uids().to_vec(),
            weights: weights.values().to_vec(),
            version_key: weights.version_key(),
        };
        self.submit(call, by).await
    }
}

impl DevChain {
    /// Signs a call with the sender's next nonce, submits it and waits for the block that takes it.
    async fn submit(&self, call: Call, by: &dyn Signer) -> Result<Receipt, ChainError> {
        let (extrinsic, nonce, mut statuses) = {
            let mut node = self.node.write();
            let head = node.blocks().head();
            let (era, birth) = (Era::mortal(ERA_BLOCKS, head.header.number), head.hash);
            let nonce = node.next_nonce(AccountId32(by.hotkey().0));
            let call = RuntimeCall::SubtensorModule(call);
            let extrinsic = extrinsic::sign(&call, era, nonce, node.blocks().genesis(), birth, by);
            let statuses = node.submit_and_watch(extrinsic.clone());
            (extrinsic, nonce, statuses.map_err(|refusal| ChainError::Pool(refusal.to_string()))?)
        };
        while let Some(status) = statuses.recv().await {
            match status {
                Status::Future | Status::Ready | Status::InBlock(_) => {}
                Status::Finalized(block) => return receipt(&self.node.read(), &block, &extrinsic, nonce),
                Status::Invalid => return Err(ChainError::Pool("the extrinsic became invalid while it waited".into())),
            }
        }
        Err(ChainError::Unknown { nonce: nonce.into() })
    }
}

fn head(node: &Node, slot: Duration) -> Head {
    let head = node.finalised();
    Head { block: head.header.number.into(), hash: head.hash.0, spec: SPEC_VERSION, slot }
}

/// The fate of an extrinsic that is in a block.
fn receipt(node: &Node, block: &H256, extrinsic: &[u8], nonce: u32) -> Result<Receipt, ChainError> {
    let (block, outcome) = node.outcome(block, extrinsic).ok_or(ChainError::Unknown { nonce: nonce.into() })?;
    outcome.map_err(refused)?;
    Ok(Receipt { block: block.into(), hash: sp_crypto_hashing::blake2_256(extrinsic), reveal_round: None })
}

/// A dispatch error by pallet and name, as clients decode it with the metadata.
fn refused(error: DispatchError) -> ChainError {
    let (pallet, name) = match error {
        DispatchError::Module(error) => {
            let name = Error::decode(&mut &error.error[..]);
            ("SubtensorModule", name.map_or_else(|_| format!("{error:?}"), |name| format!("{name:?}")))
        }
        DispatchError::Other | DispatchError::CannotLookup | DispatchError::BadOrigin => {
            ("System", format!("{error:?}"))
        }
    };
    ChainError::Refused { pallet: pallet.into(), name }
}

fn metagraph(view: View<'_>, netuid: u16) -> Result<Metagraph, ChainError> {
    if !view.get(&storage::NetworksAdded, NetUid(netuid)) {
        return Err(ChainError::Refused {
            pallet: "SubtensorModule".into(),
            name: format!("{:?}", Error::SubnetNotExists),
        });
    }
    let columns = runtime_api::metagraph(view, NetUid(netuid));
    let neurons = (0..=u16::MAX)
        .zip(0..columns.hotkeys.len())
        .map(|(uid, row)| Neuron {
            uid,
            hotkey: Hotkey(columns.hotkeys[row].0),
            coldkey: columns.coldkeys[row].0,
            axon: socket_address(&columns.axons[row]),
            axon_version: columns.axons[row].version,
            alpha_stake: columns.alpha_stake[row].0.0,
            total_stake: columns.total_stake[row].0.0,
            validator_permit: columns.validator_permit[row],
            active: columns.active[row],
            last_update: columns.last_update[row].0,
            registered_at: columns.block_at_registration[row].0,
        })
        .collect();
    let owner_hotkey = Hotkey(columns.owner_hotkey.0);
    Ok(Metagraph { netuid, block: columns.block.0, owner_hotkey, neurons })
}

/// The weights that each neuron has set.
fn weight_rows(view: View<'_>, netuid: NetUid, neurons: &[Neuron]) -> BTreeMap<u16, Vec<(u16, u16)>> {
    let index = NetUidStorageIndex::from(netuid);
    let rows = neurons.iter().map(|neuron| (neuron.uid, view.get(&storage::Weights, (index, neuron.uid))));
    rows.filter(|(_, row)| !row.is_empty()).collect()
}

/// By uid, what the weights of now agree on. The chain's column is of its last epoch; this one has no emission to pay.
pub(crate) fn agreed(view: View<'_>, netuid: NetUid) -> Vec<u16> {
    metagraph(view, netuid.0)
        .map_or_else(|_| Vec::new(), |graph| consensus(&graph.neurons, &weight_rows(view, netuid, &graph.neurons)))
}

fn rules(view: View<'_>, netuid: NetUid) -> Rules {
    Rules {
        tempo: view.get(&storage::Tempo, netuid),
        immunity_period: view.get(&storage::ImmunityPeriod, netuid),
        min_allowed_weights: view.get(&storage::MinAllowedWeights, netuid),
        max_weight_limit: view.get(&storage::MaxWeightsLimit, netuid),
        weights_version: view.get(&storage::WeightsVersionKey, netuid),
        weights_rate_limit: view.get(&storage::WeightsSetRateLimit, netuid),
        serving_rate_limit: view.get(&storage::ServingRateLimit, netuid),
        stake_threshold: view.get(&storage::StakeThreshold, ()),
        commit_reveal: view.get(&storage::CommitRevealWeightsEnabled, netuid),
        reveal_period: view.get(&storage::RevealPeriodEpochs, netuid),
        max_uids: view.get(&storage::MaxAllowedUids, netuid),
        admin_freeze_window: view.get(&storage::AdminFreezeWindow, ()),
    }
}

/// Where an axon serves; `None` if it was never set.
fn socket_address(axon: &AxonInfo) -> Option<SocketAddr> {
    let ip = match axon.ip_type {
        4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(axon.ip).ok()?)),
        6 => IpAddr::V6(Ipv6Addr::from(axon.ip)),
        _ => return None,
    };
    (axon.port != 0 && axon.ip != 0).then_some(SocketAddr::new(ip, axon.port))
}
