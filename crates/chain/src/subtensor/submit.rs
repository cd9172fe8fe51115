//! One extrinsic from signature to verdict: mortal, submitted once, watched until its block is final, judged by its event
//! (chain spec 4.4). What is lost on the way is reported as lost, never sent again from here.

use std::time::Duration;

use subxt::SubstrateConfig;
use subxt::client::OnlineClientAtBlockImpl;
use subxt::config::substrate::SubstrateExtrinsicParamsBuilder;
use subxt::error::{DispatchError, ExtrinsicError, TransactionEventsError};
use subxt::rpcs::UserError;
use subxt::transactions::{
    Payload, SubmittableTransaction, TransactionInBlock, TransactionProgress, TransactionStatus,
};
use subxt::utils::{AccountId32, MultiSignature};
use tokio::time::timeout;

use super::fault::{Fault, node_answer};
use super::{At, CALL_LIMIT};
use crate::{ChainError, Receipt, Signer};

/// Blocks during which the extrinsic is valid.
const ERA_BLOCKS: u32 = 64;

/// Blocks beyond the era until a final block must have been seen.
const FINALITY_BLOCKS: u32 = 10;

/// Answers of the pool: "already imported" and "priority is too low", which both mean that it holds an extrinsic of this
/// nonce already.
const ALREADY_PENDING: [i32; 2] = [1013, 1014];

type PinnedClient = OnlineClientAtBlockImpl<SubstrateConfig>;

/// An extrinsic, signed and encoded.
pub(super) type Extrinsic = SubmittableTransaction<SubstrateConfig, PinnedClient>;

/// Signs `call` with an era that begins at the pinned block.
pub(super) fn sign(at: &At, call: &impl Payload, nonce: u64, by: &dyn Signer) -> Result<Extrinsic, Fault> {
    let params = SubstrateExtrinsicParamsBuilder::<SubstrateConfig>::new()
        .mortal_from_unchecked(u64::from(ERA_BLOCKS), at.block_number(), at.block_hash())
        .nonce(nonce)
        .build();
    let mut signable = at.tx().create_signable_offline(call, params)?;
    let signature = MultiSignature::Sr25519(by.sign(&signable.signer_payload()?).0);
    Ok(signable.sign_with_account_and_signature(&AccountId32(by.hotkey().0), &signature)?)
}

/// Submits once and waits for the verdict in a finalised block.
pub(super) async fn submit_and_watch(extrinsic: &Extrinsic, nonce: u64, slot: Duration) -> Result<Receipt, ChainError> {
    let unknown = ChainError::Unknown { nonce };
    let progress = match timeout(CALL_LIMIT, extrinsic.submit_and_watch()).await {
        Ok(Ok(progress)) => progress,
        Ok(Err(ExtrinsicError::ErrorSubmittingTransaction(error))) => {
            return Err(node_answer(&error).map_or(unknown, |answer| pool_refusal(answer, nonce)));
        }
        Ok(Err(_)) | Err(_) => return Err(unknown),
    };
    // A chain of quick blocks that falls behind its pace is still given the time of a slow answer.
    let patience = CALL_LIMIT.max(slot * (ERA_BLOCKS + FINALITY_BLOCKS));
    let included = timeout(patience, finalised(progress, nonce)).await.unwrap_or(Err(unknown.clone()))?;
    timeout(CALL_LIMIT, verdict(&included, nonce)).await.unwrap_or(Err(unknown))
}

/// Follows the extrinsic until a block that holds it is final.
async fn finalised(
    mut progress: TransactionProgress<SubstrateConfig, PinnedClient>,
    nonce: u64,
) -> Result<TransactionInBlock<SubstrateConfig, PinnedClient>, ChainError> {
    while let Some(Ok(status)) = progress.next().await {
        match status {
            TransactionStatus::InFinalizedBlock(block) => return Ok(block),
            TransactionStatus::Invalid { message } => return Err(ChainError::Pool(message)),
            TransactionStatus::Error { .. } | TransactionStatus::Dropped { .. } => break,
            TransactionStatus::Validated
            | TransactionStatus::Broadcasted
            | TransactionStatus::InBestBlock(_)
            | TransactionStatus::NoLongerInBestBlock => {}
        }
    }
    Err(ChainError::Unknown { nonce })
}

/// Reads the events of the extrinsic in its block.
async fn verdict(
    included: &TransactionInBlock<SubstrateConfig, PinnedClient>,
    nonce: u64,
) -> Result<Receipt, ChainError> {
    match included.wait_for_success().await {
        Ok(_) => {}
        Err(TransactionEventsError::ExtrinsicFailed(error)) => return Err(refusal(&error)),
        Err(_) => return Err(ChainError::Unknown { nonce }),
    }
    let at = included.at().await.map_err(|_| ChainError::Unknown { nonce })?;
    Ok(Receipt { block: at.block_number(), hash: included.extrinsic_hash().0, reveal_round: None })
}

/// A dispatch error by pallet and name; those of no pallet are the runtime's own.
fn refusal(error: &DispatchError) -> ChainError {
    if let DispatchError::Module(module) = error
        && let Ok(details) = module.details()
    {
        return ChainError::Refused { pallet: details.pallet.name().to_owned(), name: details.variant.name.clone() };
    }
    ChainError::Refused { pallet: "Runtime".to_owned(), name: format!("{error:?}") }
}

/// What the pool's answer means (4.4).
fn pool_refusal(answer: &UserError, nonce: u64) -> ChainError {
    if ALREADY_PENDING.contains(&answer.code) {
        return ChainError::Unknown { nonce };
    }
    let detail = answer.data.as_ref().map_or("", |data| data.get().trim_matches('"'));
    let meaning = match detail.strip_prefix("Custom error: ") {
        Some("3") => "no such subnet",
        Some("4") => "unknown hotkey",
        Some("6") => return ChainError::TooSoon(1),
        Some("10") => "hotkey is not registered on the subnet",
        Some("11") => "bad axon address",
        Some("12") => return ChainError::TooSoon(1),
        Some("13") => "bad axon port",
        Some("15") => "bad reveal round",
        Some("18") => "uids and weights of different length",
        Some("255") => "bad request",
        _ => return ChainError::Pool(format!("{} ({}) {detail}", answer.message, answer.code)),
    };
    ChainError::Pool(meaning.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, data: &str) -> UserError {
        let text = format!(r#"{{"code":{code},"message":"Invalid Transaction","data":{data}}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_rate_limit_of_the_pool_is_a_reason_to_wait() {
        for custom in [6, 12] {
            let refused = pool_refusal(&answer(1010, &format!(r#""Custom error: {custom}""#)), 5);
            assert_eq!(refused, ChainError::TooSoon(1));
        }
    }

    #[test]
    fn a_refusal_by_number_is_told_in_words() {
        let refused = pool_refusal(&answer(1010, r#""Custom error: 10""#), 5);
        assert_eq!(refused, ChainError::Pool("hotkey is not registered on the subnet".to_owned()));
        let other = pool_refusal(&answer(1010, r#""Transaction is outdated""#), 5);
        assert_eq!(other, ChainError::Pool("Invalid Transaction (1010) Transaction is outdated".to_owned()));
    }

    #[test]
    fn an_extrinsic_that_the_pool_holds_already_has_an_unknown_fate() {
        for code in [1013, 1014] {
            assert_eq!(pool_refusal(&answer(code, "null"), 5), ChainError::Unknown { nonce: 5 });
        }
    }
}
