//! Parameters and answers as they travel, and the errors of a real node.

use std::fmt;

use jsonrpsee::{
    SubscriptionMessage,
    types::{ErrorObjectOwned, error::INVALID_PARAMS_CODE},
};
use serde::{Deserialize, Serialize};

use crate::{block::Header, node::Node, state::View, types::H256};

/// The code of errors about state and runtime calls.
const CLIENT_ERROR: i32 = 4003;

/// Bytes as hexadecimal text: with `0x` when sent, with or without when received.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hex(pub(super) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map(Self)
    }
}

impl From<Hex> for String {
    fn from(bytes: Hex) -> Self {
        format!("0x{}", hex::encode(bytes.0))
    }
}

/// A hash as hexadecimal text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Hex", into = "Hex")]
pub(super) struct Hash(pub(super) H256);

impl TryFrom<Hex> for Hash {
    type Error = &'static str;

    fn try_from(bytes: Hex) -> Result<Self, &'static str> {
        bytes.0.try_into().map(|hash| Self(H256(hash))).map_err(|_| "a hash has 32 bytes")
    }
}

impl From<Hash> for Hex {
    fn from(hash: Hash) -> Self {
        Self(hash.0.0.to_vec())
    }
}

/// A block number as clients send it: a number, or hexadecimal text.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(untagged)]
pub(super) enum BlockNumber {
    Number(u64),
    #[serde(deserialize_with = "hexadecimal")]
    Hex(u64),
}

impl BlockNumber {
    /// The number; `None` if no block can have it.
    pub(super) fn get(self) -> Option<u32> {
        let (Self::Number(number) | Self::Hex(number)) = self;
        number.try_into().ok()
    }
}

fn hexadecimal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).map_err(serde::de::Error::custom)
}

/// A header as clients read it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeaderJson {
    parent_hash: Hash,
    number: String,
    state_root: Hash,
    extrinsics_root: Hash,
    digest: Digest,
}

#[derive(Clone, Debug, Serialize)]
struct Digest {
    logs: [(); 0],
}

impl From<&Header> for HeaderJson {
    fn from(header: &Header) -> Self {
        Self {
            parent_hash: Hash(header.parent),
            number: format!("{:#x}", header.number),
            state_root: Hash(header.state_root),
            extrinsics_root: Hash(header.extrinsics_root),
            digest: Digest { logs: [] },
        }
    }
}

/// The state at a block, the head if none is named.
pub(super) fn view_at(node: &Node, at: Option<Hash>) -> Result<View<'_>, ErrorObjectOwned> {
    let Some(Hash(hash)) = at else { return Ok(node.latest()) };
    let view = node.blocks().by_hash(&hash).and_then(|block| node.at(block.header.number));
    view.ok_or_else(|| {
        let hash = String::from(Hex::from(Hash(hash)));
        client_error(format_args!("UnknownBlock: Header was not found in the database: {hash}"))
    })
}

/// An error of the node's client, which is what a real node calls its state and runtime.
pub(super) fn client_error(message: impl fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(CLIENT_ERROR, format!("Client error: {message}"), None::<()>)
}

/// A parameter of the right form that means nothing.
pub(super) fn invalid_params(message: impl fmt::Display) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(INVALID_PARAMS_CODE, message.to_string(), None::<()>)
}

/// A notification's content.
pub(super) fn message(content: &impl Serialize) -> Result<SubscriptionMessage, serde_json::Error> {
    serde_json::value::to_raw_value(content).map(SubscriptionMessage::from)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn hexadecimal_is_read_with_and_without_its_prefix_and_sent_with_it() {
        for text in ["0x0aff", "0aff"] {
            assert_eq!(from_value::<Hex>(json!(text)).unwrap(), Hex(vec![0x0a, 0xff]));
        }
        assert_eq!(to_value(Hex(vec![0x0a, 0xff])).unwrap(), json!("0x0aff"));
        assert!(from_value::<Hex>(json!("0x0")).is_err());
    }

    #[test]
    fn a_block_number_is_a_number_or_hexadecimal_text() {
        for number in [json!(16), json!("0x10"), json!("10")] {
            assert_eq!(from_value::<BlockNumber>(number).unwrap().get(), Some(16));
        }
        assert_eq!(from_value::<BlockNumber>(json!(u64::MAX)).unwrap().get(), None);
    }
}
