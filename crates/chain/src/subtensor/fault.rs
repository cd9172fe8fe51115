//! Sorts what subxt reports into what the caller must do: dial another endpoint, or take the chain's answer.

use subxt::error::{
    AccountNonceError, BackendError, BlocksError, ConstantError, EventsError, ExtrinsicError, OnlineClientAtBlockError,
    OnlineClientError, RpcError, RuntimeApiError, StorageError, StorageValueError,
};
use subxt::rpcs::{Error as ClientError, UserError};

use crate::ChainError;

/// A call that did not succeed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection or its node is of no use; the text says why.
    Lost(String),
    /// The chain answered.
    Chain(ChainError),
}

impl Fault {
    /// The error of a step that ran before anything was sent, so that a retry is safe.
    pub(super) fn before_sending(self) -> ChainError {
        match self {
            Self::Lost(why) => ChainError::Unreachable(why),
            Self::Chain(error) => error,
        }
    }

    fn unsupported(what: impl ToString) -> Self {
        Self::Chain(ChainError::Unsupported(what.to_string()))
    }
}

/// What the node itself answered, if it was the node that refused and not the connection that failed.
pub(super) fn node_answer(error: &BackendError) -> Option<&UserError> {
    match error {
        BackendError::Rpc(RpcError::ClientError(ClientError::User(answer))) => Some(answer),
        _ => None,
    }
}

impl From<ChainError> for Fault {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}

impl From<BackendError> for Fault {
    /// A missing runtime call is missing on every node of the chain; any other refusal may be this node's alone.
    fn from(error: BackendError) -> Self {
        match node_answer(&error) {
            Some(answer) if answer.message.contains("is not found") => Self::unsupported(&answer.message),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<OnlineClientError> for Fault {
    fn from(error: OnlineClientError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<OnlineClientAtBlockError> for Fault {
    fn from(error: OnlineClientAtBlockError) -> Self {
        match error {
            OnlineClientAtBlockError::UnsupportedMetadataVersion { .. }
            | OnlineClientAtBlockError::CannotConvertModernMetadata { .. } => Self::unsupported(error),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<BlocksError> for Fault {
    fn from(error: BlocksError) -> Self {
        match error {
            BlocksError::CannotGetCurrentBlock(error) => error.into(),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::CannotFetchValue(error) => error.into(),
            _ => Self::unsupported(error),
        }
    }
}

impl From<StorageValueError> for Fault {
    fn from(error: StorageValueError) -> Self {
        Self::unsupported(error)
    }
}

impl From<ConstantError> for Fault {
    fn from(error: ConstantError) -> Self {
        Self::unsupported(error)
    }
}

impl From<RuntimeApiError> for Fault {
    fn from(error: RuntimeApiError) -> Self {
        match error {
            RuntimeApiError::CannotCallApi(error) => error.into(),
            _ => Self::unsupported(error),
        }
    }
}

impl From<ExtrinsicError> for Fault {
    /// Of making an extrinsic and of reading a block; the node's answer to one that is sent is judged in `submit`.
    fn from(error: ExtrinsicError) -> Self {
        match error {
            ExtrinsicError::AccountNonceError { reason: AccountNonceError::CouldNotRetrieve(error), .. }
            | ExtrinsicError::CannotGetBlockBody(error) => error.into(),
            ExtrinsicError::BlockNotFound(_) => Self::Lost(error.to_string()),
            _ => Self::unsupported(error),
        }
    }
}

impl From<EventsError> for Fault {
    fn from(error: EventsError) -> Self {
        match error {
            EventsError::CannotFetchEventBytes(error) => error.into(),
            _ => Self::unsupported(error),
        }
    }
}
