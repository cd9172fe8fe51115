//! The table of storage entries: the one place that says where a value lies, how its key is hashed, of what type it is
//! and what an unset key reads as. Metadata, keys, defaults and typed access all come from it (chain spec 4.2).
#![expect(non_upper_case_globals, reason = "entries bear the chain's own names")]

use std::{marker::PhantomData, ops::Deref};

use frame_metadata::v14::StorageHasher::{self, Blake2_128Concat, Identity, Twox64Concat};
use parity_scale_codec::Encode;
use scale_info::{MetaType, TypeInfo, meta_type};
use sp_crypto_hashing::{blake2_128, twox_64, twox_128};

use crate::types::{
    AccountId32, AlphaBalance, BoundedVec, H256, MechId, NetUid, NetUidStorageIndex, RuntimeEvent, TaoBalance,
    frame_system::{AccountInfo, EventRecord},
    pallet_subtensor::pallet::{AxonInfo, EpochConsensus},
};

/// Where values of type `V` lie, one for each key of type `K`. A key that was never written has no value.
pub(crate) struct Slot<K, V> {
    pallet: &'static str,
    entry: &'static str,
    hashers: &'static [StorageHasher],
    types: PhantomData<fn(K) -> V>,
}

impl<K: Key, V> Slot<K, V> {
    /// The whole key: twox128(pallet) ‖ twox128(entry) ‖ the hashed parts.
    pub(crate) fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = [twox_128(self.pallet.as_bytes()), twox_128(self.entry.as_bytes())].concat();
        key.hash_into(self.hashers, &mut bytes);
        bytes
    }
}

/// A [`Slot`] whose unwritten keys read as a default.
pub(crate) struct Entry<K, V> {
    slot: Slot<K, V>,
    pub(crate) default: fn() -> V,
}

impl<K, V> Deref for Entry<K, V> {
    type Target = Slot<K, V>;

    fn deref(&self) -> &Slot<K, V> {
        &self.slot
    }
}

/// A part of a storage key, hashed by itself.
pub(crate) trait KeyPart: Encode + TypeInfo + 'static {}

impl KeyPart for AccountId32 {}
impl KeyPart for NetUid {}
impl KeyPart for NetUidStorageIndex {}
impl KeyPart for u16 {}
impl KeyPart for u64 {}

/// Sealed weights: who committed to them, in which block, the sealed bytes, the round that opens them.
pub(crate) type Commit = (AccountId32, u64, BoundedVec, u64);

/// A storage key: no part, one, or two.
pub(crate) trait Key {
    /// Appends each part behind its hash.
    fn hash_into(&self, hashers: &[StorageHasher], bytes: &mut Vec<u8>);

    /// The key's type; `None` for an entry with a single value.
    fn meta_type() -> Option<MetaType>;
}

impl Key for () {
    fn hash_into(&self, _: &[StorageHasher], _: &mut Vec<u8>) {}

    fn meta_type() -> Option<MetaType> {
        None
    }
}

impl<A: KeyPart> Key for A {
    fn hash_into(&self, hashers: &[StorageHasher], bytes: &mut Vec<u8>) {
        hash_part(&hashers[0], self, bytes);
    }

    fn meta_type() -> Option<MetaType> {
        Some(meta_type::<A>())
    }
}

impl<A: KeyPart, B: KeyPart> Key for (A, B) {
    fn hash_into(&self, hashers: &[StorageHasher], bytes: &mut Vec<u8>) {
        hash_part(&hashers[0], &self.0, bytes);
        hash_part(&hashers[1], &self.1, bytes);
    }

    fn meta_type() -> Option<MetaType> {
        Some(meta_type::<(A, B)>())
    }
}

fn hash_part(hasher: &StorageHasher, part: &impl KeyPart, bytes: &mut Vec<u8>) {
    let part = part.encode();
    match hasher {
        Blake2_128Concat => bytes.extend(blake2_128(&part)),
        Twox64Concat => bytes.extend(twox_64(&part)),
        // The table below names no other hasher.
        _ => {}
    }
    bytes.extend(part);
}

/// What the metadata says of one entry.
pub(crate) struct Description {
    pub(crate) pallet: &'static str,
    pub(crate) entry: &'static str,
    pub(crate) hashers: &'static [StorageHasher],
    pub(crate) key: Option<MetaType>,
    pub(crate) value: MetaType,
    /// The encoded default; `None` where an unwritten key has no value.
    pub(crate) default: Option<Vec<u8>>,
}

impl<K: Key, V: TypeInfo + 'static> Slot<K, V> {
    fn describe(&self) -> Description {
        Description {
            pallet: self.pallet,
            entry: self.entry,
            hashers: self.hashers,
            key: K::meta_type(),
            value: meta_type::<V>(),
            default: None,
        }
    }
}

impl<K: Key, V: TypeInfo + Encode + 'static> Entry<K, V> {
    fn describe(&self) -> Description {
        Description { default: Some((self.default)().encode()), ..self.slot.describe() }
    }
}

macro_rules! storage_table {
    ($($pallet:ident { $($entry:ident: [$($hasher:ident),*] $key:ty => $value:ty $(= $default:expr)?;)+ })+) => {
        $($(storage_table!(@entry $pallet $entry [$($hasher),*] $key, $value $(, $default)?);)+)+

        /// Every entry, pallet by pallet.
        pub(crate) fn table() -> Vec<Description> {
            vec![$($($entry.describe()),+),+]
        }
    };
    (@slot $pallet:ident $entry:ident [$($hasher:ident),*]) => {
        Slot {
            pallet: stringify!($pallet),
            entry: stringify!($entry),
            hashers: &[$($hasher),*],
            types: PhantomData,
        }
    };
    (@entry $pallet:ident $entry:ident $hashers:tt $key:ty, $value:ty) => {
        pub(crate) static $entry: Slot<$key, $value> = storage_table!(@slot $pallet $entry $hashers);
    };
    (@entry $pallet:ident $entry:ident $hashers:tt $key:ty, $value:ty, $default:expr) => {
        pub(crate) static $entry: Entry<$key, $value> =
            Entry { slot: storage_table!(@slot $pallet $entry $hashers), default: || $default };
    };
}

storage_table! {
    System {
        Account: [Blake2_128Concat] AccountId32 => AccountInfo = AccountInfo::default();
        Number: [] () => u32 = 0;
        ParentHash: [] () => H256 = H256::default();
        Events: [] () => Vec<EventRecord<RuntimeEvent, H256>> = Vec::new();
    }
    Commitments {
        CommitmentOf: [Twox64Concat, Twox64Concat] (NetUid, AccountId32) => Vec<u8>;
        RevealedCommitments: [Twox64Concat, Twox64Concat] (NetUid, AccountId32) => Vec<u8>;
    }
    Drand {
        LastStoredRound: [] () => u64 = 0;
    }
    Timestamp {
        Now: [] () => u64 = 0;
    }
    SubtensorModule {
        TotalNetworks: [] () => u16 = 0;
        TokenSymbol: [Identity] NetUid => Vec<u8> = "\u{1d70f}".into();
        NetworksAdded: [Identity] NetUid => bool = false;
        SubnetOwner: [Identity] NetUid => AccountId32 = AccountId32::default();
        SubnetOwnerHotkey: [Identity] NetUid => AccountId32 = AccountId32::default();

        Tempo: [Identity] NetUid => u16 = 10;
        LastEpochBlock: [Identity] NetUid => u64 = 0;
        PendingEpochAt: [Identity] NetUid => u64 = 0;
        SubnetEpochIndex: [Identity] NetUid => u64 = 0;
        SubnetEpochConsensus: [Identity] NetUid => EpochConsensus = EpochConsensus::default();
        BlocksSinceLastStep: [Identity] NetUid => u64 = 0;
        AdminFreezeWindow: [] () => u16 = 10;

        WeightsVersionKey: [Identity] NetUid => u64 = 0;
        WeightsSetRateLimit: [Identity] NetUid => u64 = 100;
        MinAllowedWeights: [Identity] NetUid => u16 = 1024;
        MaxWeightsLimit: [Identity] NetUid => u16 = u16::MAX;
        CommitRevealWeightsEnabled: [Identity] NetUid => bool = true;
        CommitRevealWeightsVersion: [] () => u16 = 4;
        RevealPeriodEpochs: [Twox64Concat] NetUid => u64 = 1;
        StakeThreshold: [] () => u64 = 0;

        ImmunityPeriod: [Identity] NetUid => u16 = 4096;
        ServingRateLimit: [Identity] NetUid => u64 = 50;
        MaxAllowedUids: [Identity] NetUid => u16 = 256;
        Burn: [Identity] NetUid => TaoBalance = TaoBalance(100_000_000);
        MechanismCountCurrent: [Twox64Concat] NetUid => MechId = MechId(1);
        MechanismEmissionSplit: [Twox64Concat] NetUid => Vec<u16>;

        SubnetworkN: [Identity] NetUid => u16 = 0;
        Uids: [Identity, Blake2_128Concat] (NetUid, AccountId32) => u16;
        Keys: [Identity, Identity] (NetUid, u16) => AccountId32 = AccountId32::default();
        Owner: [Blake2_128Concat] AccountId32 => AccountId32 = AccountId32::default();
        IsNetworkMember: [Blake2_128Concat, Identity] (AccountId32, NetUid) => bool = false;
        TotalHotkeyAlpha: [Blake2_128Concat, Identity] (AccountId32, NetUid) => AlphaBalance = AlphaBalance(0);
        BlockAtRegistration: [Identity, Identity] (NetUid, u16) => u64 = 0;
        Axons: [Identity, Blake2_128Concat] (NetUid, AccountId32) => AxonInfo;

        Active: [Identity] NetUid => Vec<bool> = Vec::new();
        ValidatorPermit: [Identity] NetUid => Vec<bool> = Vec::new();
        LastUpdate: [Identity] NetUidStorageIndex => Vec<u64> = Vec::new();
        TimelockedWeightCommits: [Twox64Concat, Twox64Concat] (NetUidStorageIndex, u64) => Vec<Commit> = Vec::new();
        Weights: [Identity, Identity] (NetUidStorageIndex, u16) => Vec<(u16, u16)> = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_chain() {
        // twox128("System") ‖ twox128("Number"), known from every Substrate chain.
        assert_eq!(hex::encode(Number.key(&())), "26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac");
        let tempo = Tempo.key(&NetUid(1));
        assert_eq!(tempo.len(), 34, "an identity-hashed netuid is its two bytes");
        assert_eq!(tempo[32..], [1, 0]);
        let uids = Uids.key(&(NetUid(1), AccountId32([7; 32])));
        assert_eq!(uids.len(), 32 + 2 + 16 + 32);
        assert_eq!(uids[50..], [7; 32]);
    }

    #[test]
    fn every_key_part_has_its_hasher() {
        for description in table() {
            let parts = match description.key {
                None => 0,
                Some(key) => match key.type_info().type_def {
                    scale_info::TypeDef::Tuple(tuple) => tuple.fields.len(),
                    _ => 1,
                },
            };
            assert_eq!(parts, description.hashers.len(), "{}.{}", description.pallet, description.entry);
        }
    }
}
