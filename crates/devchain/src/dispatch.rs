//! What a call does to the state. Each call checks first, in the chain's order and with the chain's error names, and
//! writes only when nothing can fail any more, so that a refused call leaves no trace but its event.

pub(crate) mod axon;
pub(crate) mod commit;
pub(crate) mod registration;
mod weights;

use weights::Vector;

use crate::{
    extrinsic::Refusal,
    state::{State, View},
    types::{
        AccountId32, DispatchError, MechId, RuntimeCall, RuntimeEvent,
        pallet_subtensor::pallet::{AxonInfo, Call, Error, Event},
    },
};

/// Applies the call of `sender` to the block being built and answers its own event, if it has one.
pub(crate) fn dispatch(
    state: &mut State,
    sender: AccountId32,
    call: RuntimeCall,
) -> Result<Option<RuntimeEvent>, DispatchError> {
    let call = match call {
        RuntimeCall::System(_) => return Ok(None),
        // Only the block's author sets the time.
        RuntimeCall::Timestamp(_) => return Err(DispatchError::BadOrigin),
        RuntimeCall::SubtensorModule(call) => call,
    };
    let event = subtensor(state, sender, call)?;
    Ok(Some(RuntimeEvent::SubtensorModule(event)))
}

fn subtensor(state: &mut State, sender: AccountId32, call: Call) -> Result<Event, Error> {
    match call {
        Call::set_weights { netuid, dests, weights, version_key } => {
            let vector = Vector { uids: dests, values: weights, version_key };
            weights::set(state, sender, netuid, MechId(0), &vector)
        }
        Call::set_mechanism_weights { netuid, mecid, dests, weights, version_key } => {
            let vector = Vector { uids: dests, values: weights, version_key };
            weights::set(state, sender, netuid, mecid, &vector)
        }
        Call::commit_timelocked_weights { netuid, commit, reveal_round, commit_reveal_version } => {
            commit::commit(state, sender, netuid, MechId(0), commit, reveal_round, commit_reveal_version)
        }
        Call::commit_timelocked_mechanism_weights { netuid, mecid, commit, reveal_round, commit_reveal_version } => {
            commit::commit(state, sender, netuid, mecid, commit, reveal_round, commit_reveal_version)
        }
        Call::serve_axon { netuid, version, ip, port, ip_type, protocol, placeholder1, placeholder2 } => {
            let block = u64::from(state.latest().block());
            let axon = AxonInfo { block, version, ip, port, ip_type, protocol, placeholder1, placeholder2 };
            axon::serve(state, sender, netuid, axon)
        }
        Call::burned_register { netuid, hotkey } => registration::burned_register(state, sender, netuid, hotkey),
    }
}

/// The check before a call enters the pool. The chain foresees some failures here and answers with a number.
pub(crate) fn validate(view: View<'_>, sender: AccountId32, call: &RuntimeCall) -> Result<(), Refusal> {
    match call {
        &RuntimeCall::SubtensorModule(Call::serve_axon { netuid, ip, port, ip_type, .. }) => {
            // The extrinsic can be in the next block at the earliest.
            let now = u64::from(view.block()) + 1;
            axon::check(view, sender, netuid, now, ip_type, ip, port)
                .map_err(|error| Refusal::Custom(custom_number(error)))
        }
        RuntimeCall::SubtensorModule(
            Call::commit_timelocked_weights { commit, reveal_round, .. }
            | Call::commit_timelocked_mechanism_weights { commit, reveal_round, .. },
        ) => {
            if !commit::is_bounded(commit) {
                return Err(Refusal::BadFormat("the commit is longer than its bound".into()));
            }
            commit::validate(view, *reveal_round)
        }
        _ => Ok(()),
    }
}

/// The number under which the pool reports an error of the pallet.
fn custom_number(error: Error) -> u8 {
    match error {
        Error::HotKeyNotRegisteredInNetwork => 10,
        Error::InvalidIpAddress => 11,
        Error::ServingRateLimitExceeded => 12,
        Error::InvalidPort => 13,
        _ => 255,
    }
}

/// `Err(error)` unless the condition holds.
fn ensure(condition: bool, error: Error) -> Result<(), Error> {
    if condition { Ok(()) } else { Err(error) }
}
