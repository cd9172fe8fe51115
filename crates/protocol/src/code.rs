//! What can go wrong, in numbers: error codes between miner and validator, and the WebSocket close codes of a worker's
//! connection. Each is a name space of its own (miner-validator spec 6, worker-miner spec 1.5 and 2.11).

use std::fmt;

/// Builds the enum and both directions of its numbers from one table.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// An error code of miner-validator spec 6.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> i64 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The code of a number, if the table has it.
            #[must_use]
            pub fn from_number(number: i64) -> Option<Self> {
                match number {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// All went well.
    Success = 0,
    /// An unnamed failure, inside an encrypted error: read the text, do not retry.
    Failed = 1,
    /// A request that cannot be understood.
    InvalidRequest = 1000,
    /// An empty or unusable reply.
    InvalidResponse = 1001,
    /// Reserved.
    TimeoutError = 1002,
    /// Rate limited, or no validator could be reached: back off for at least 30 s.
    NetworkError = 1003,
    /// The heartbeat was not processed.
    HeartbeatProcessingFailed = 1004,
    /// Reserved.
    TaskProcessingFailed = 1005,
    /// A worker could not compute its challenge.
    ChallengeProcessingFailed = 1006,
    /// A configuration key is missing.
    ConfigMissingKey = 2000,
    /// A configuration value is wrong.
    ConfigInvalidValue = 2001,
    /// A configuration does not hold together.
    ConfigValidationFailed = 2002,
    /// A request was refused: do not retry.
    ValidationFailed = 3000,
    /// Reserved.
    InvalidSignature = 3001,
    /// Reserved.
    InvalidProof = 3002,
    /// Reserved.
    MerkleVerificationFailed = 3003,
    /// No processor for this protocol type, or no session could be had.
    SessionRequired = 4010,
    /// A package that does not belong to its session, or a reply that could not be sealed.
    SessionUnknown = 4011,
    /// The session is unknown or has expired.
    SessionExpired = 4012,
    /// The peer wants a new session.
    RehandshakeRequired = 4013,
    /// A replayed package; sent as [`Self::SequenceError`].
    ReplayDetected = 4014,
    /// An empty request, or a payload that does not fit its schema.
    BadAad = 4015,
    /// A wrong nonce.
    BadNonce = 4016,
    /// Reserved; sent as [`Self::SequenceError`].
    SeqWindowExceeded = 4017,
    /// A handshake was refused or failed.
    HandshakeFailed = 4018,
    /// Too many sessions.
    SessionLimitExceeded = 4019,
    /// Replayed, too old or too far ahead.
    SequenceError = 4020,
    /// The store failed.
    DbError = 5000,
    /// The store cannot be reached.
    DbConnectionError = 5001,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A close code of the worker's WebSocket connection (worker-miner spec 1.5, 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Orderly end.
    Normal = 1000,
    /// Server shutdown, or the connection was replaced.
    GoingAway = 1001,
    /// A frame that breaks RFC 6455, as a compressed one that was never agreed upon.
    Protocol = 1002,
    /// A message above the receiver's limit.
    TooLarge = 1009,
    /// Ping timeout or an internal error.
    Internal = 1011,
    /// The first message is JSON but no valid `register`.
    InvalidRegistration = 4000,
    /// `worker_id` is blank.
    InvalidWorkerId = 4001,
    /// `worker_version` is blank.
    MissingVersion = 4002,
    /// No heartbeat in time. Above 4000, so that a Python worker reconnects at once.
    HeartbeatTimeout = 4003,
    /// The miner serves as many workers as it may.
    WorkerLimit = 4004,
    /// The proof of the worker's key does not hold, or is missing where the `worker_id` belongs to an enrolled key.
    NotProved = 4005,
    /// The worker's key is not enrolled with this miner, or not any more.
    NotEnrolled = 4006,
    /// The join token is unknown, used or expired, or too many wrong ones came from this address.
    JoinRefused = 4007,
    /// The worker claimed another one's task.
    ForeignTask = 4008,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The text that goes with the code.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "Connection replaced",
            Self::Protocol => "Protocol error",
            Self::TooLarge => "Message too large",
            Self::Internal => "Internal error",
            Self::InvalidRegistration => "Invalid registration",
            Self::InvalidWorkerId => "Invalid or missing worker_id",
            Self::MissingVersion => "Missing worker_version",
            Self::HeartbeatTimeout => "Heartbeat timeout",
            Self::WorkerLimit => "Worker limit reached",
            Self::NotProved => "Worker key not proved",
            Self::NotEnrolled => "Worker not enrolled",
            Self::JoinRefused => "Join token refused",
            Self::ForeignTask => "Task of another worker",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_number() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(ErrorCode::from_number(4242), None);
    }
}
