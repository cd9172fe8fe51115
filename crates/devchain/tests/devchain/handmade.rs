//! Extrinsics put together byte by byte from the chain spec (4.4), sharing no code with the chain or with `subxt`, so that
//! every part of them can be made wrong.

use byteleap_protocol::hotkey::{Keypair, Signer};
use parity_scale_codec::{Compact, Encode};
use sp_crypto_hashing::blake2_256;
use subxt::rpcs::rpc_params;

use crate::world::{NETUID, World};

/// An era without end.
const IMMORTAL: &[u8] = &[0];

/// The parts of a signed extrinsic.
pub(crate) struct Handmade {
    pub(crate) call: Vec<u8>,
    pub(crate) sender: Keypair,
    pub(crate) signer: Keypair,
    pub(crate) era: Vec<u8>,
    pub(crate) nonce: u32,
    pub(crate) mode: u8,
    pub(crate) spec_version: u32,
    pub(crate) transaction_version: u32,
    pub(crate) genesis: [u8; 32],
    pub(crate) birth: [u8; 32],
}

impl Handmade {
    /// A right one, immortal, the sender's first.
    pub(crate) fn new(world: &World, call: Vec<u8>, sender: Keypair) -> Self {
        let genesis = world.client.genesis_hash().0;
        Self {
            call,
            signer: sender.clone(),
            sender,
            era: IMMORTAL.to_vec(),
            nonce: 0,
            mode: 0,
            spec_version: 461,
            transaction_version: 1,
            genesis,
            birth: genesis,
        }
    }

    /// Gives it an era of `period` blocks, a power of two, from block `birth` on.
    pub(crate) async fn born(mut self, world: &World, birth: u16, period: u16) -> Self {
        self.era = ((birth % period) << 4 | (period.trailing_zeros() as u16 - 1)).encode();
        let hash: Option<String> = world.rpc.request("chain_getBlockHash", rpc_params![birth]).await.expect("a hash");
        if let Some(hash) = hash {
            hex::decode_to_slice(&hash[2..], &mut self.birth).expect("32 bytes");
        }
        self
    }

    /// The bytes to submit.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let extensions = [self.era.clone(), Compact(self.nonce).encode(), vec![0], vec![self.mode]].concat();
        let mut message = [self.call.clone(), extensions.clone()].concat();
        message.extend(self.spec_version.to_le_bytes());
        message.extend(self.transaction_version.to_le_bytes());
        message.extend(self.genesis);
        message.extend(self.birth);
        message.push(0);
        if message.len() > 256 {
            message = blake2_256(&message).to_vec();
        }
        let signature = self.signer.sign(&message).0;
        let (signed_v4, account_id, sr25519) = (0x84, 0, 1);
        let extrinsic =
            [&[signed_v4, account_id], &self.sender.hotkey().0[..], &[sr25519], &signature, &extensions, &self.call]
                .concat();
        extrinsic.encode()
    }
}

/// The call `set_weights`.
pub(crate) fn set_weights(uids: &[u16], values: &[u16], version_key: u64) -> Vec<u8> {
    (7_u8, 0_u8, NETUID, uids, values, version_key).encode()
}
