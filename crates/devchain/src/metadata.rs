//! Metadata in versions 15 and 14, built from the types, the storage table and the table of runtime calls: what clients are told
//! cannot differ from what the chain does. The rules that clients impose on it are those of chain spec 8.5.

use std::time::Duration;

use frame_metadata::{
    META_RESERVED, RuntimeMetadata, RuntimeMetadataPrefixed,
    v14::{self, RuntimeMetadataV14, StorageEntryModifier, StorageEntryType},
    v15::{
        CustomMetadata, ExtrinsicMetadata, OuterEnums, PalletCallMetadata, PalletConstantMetadata, PalletErrorMetadata,
        PalletEventMetadata, PalletMetadata, PalletStorageMetadata, RuntimeApiMetadata, RuntimeApiMethodMetadata,
        RuntimeApiMethodParamMetadata, RuntimeMetadataV15, SignedExtensionMetadata, StorageEntryMetadata,
    },
};
use parity_scale_codec::Encode;
use scale_info::{IntoPortable, PortableRegistry, Registry, TypeDef, TypeInfo, meta_type};

use crate::{
    runtime::{self, Extensions},
    runtime_api::Method,
    storage,
    types::{
        AccountId32, Address, MultiSignature, PATH_PREFIX, RuntimeCall, RuntimeError, RuntimeEvent, TaoBalance,
        frame_system, node_subtensor_runtime::Runtime, pallet_subtensor, pallet_timestamp,
    },
};

/// The metadata version that is offered.
pub(crate) const VERSION: u32 = 15;

/// Numbers that the chain names since mid-2026.
const NEWTYPES: [&str; 6] = ["NetUid", "NetUidStorageIndex", "MechId", "TaoBalance", "AlphaBalance", "PerU16"];

/// What an account must own to exist on the real chain, in rao; nothing checks it here.
const EXISTENTIAL_DEPOSIT: TaoBalance = TaoBalance(500);

/// The metadata, encoded with its magic number.
pub(crate) struct Metadata {
    /// What runtime calls answer.
    pub(crate) v15: Vec<u8>,
    /// What the plain request answers: the same without runtime calls.
    pub(crate) v14: Vec<u8>,
}

impl Metadata {
    /// Describes the runtime. `slot` is the time between two blocks. In the old shape, numbers have no names of their own.
    pub(crate) fn new(methods: &[Method], slot: Duration, old_shape: bool) -> Self {
        let mut v15 = describe(methods, slot);
        if old_shape {
            forget_newtypes(&mut v15.types);
        }
        let encode = |metadata| RuntimeMetadataPrefixed(META_RESERVED, metadata).encode();
        Self { v14: encode(RuntimeMetadata::V14(v14(&v15))), v15: encode(RuntimeMetadata::V15(v15)) }
    }
}

fn describe(methods: &[Method], slot: Duration) -> RuntimeMetadataV15 {
    let mut registry = Registry::new();
    // Old clients know accounts as type 0, whatever the types are called.
    registry.register_type(&meta_type::<AccountId32>());
    let pallets = registry.map_into_portable(pallets(slot));
    let extrinsic = extrinsic().into_portable(&mut registry);
    let ty = registry.register_type(&meta_type::<Runtime>());
    let apis = registry.map_into_portable(apis(methods));
    let outer_enums = OuterEnums {
        call_enum_ty: meta_type::<RuntimeCall>(),
        event_enum_ty: meta_type::<RuntimeEvent>(),
        error_enum_ty: meta_type::<RuntimeError>(),
    }
    .into_portable(&mut registry);
    let mut types = PortableRegistry::from(registry);
    cut_path_prefix(&mut types);
    let custom = CustomMetadata { map: std::collections::BTreeMap::new() };
    RuntimeMetadataV15 { types, pallets, extrinsic, ty, apis, outer_enums, custom }
}

/// The same in the version before. Its extrinsic is one type, whose parameters say of what it consists.
fn v14(metadata: &RuntimeMetadataV15) -> RuntimeMetadataV14 {
    let RuntimeMetadataV15 { types, pallets, extrinsic, ty, .. } = metadata.clone();
    let whole =
        types.types.iter().find(|entry| entry.ty.path.segments.last().is_some_and(|name| name == "UncheckedExtrinsic"));
    let pallets = pallets.into_iter().map(|pallet| v14::PalletMetadata {
        name: pallet.name,
        storage: pallet.storage,
        calls: pallet.calls,
        event: pallet.event,
        constants: pallet.constants,
        error: pallet.error,
        index: pallet.index,
    });
    let extrinsic = v14::ExtrinsicMetadata {
        ty: whole.map_or(extrinsic.call_ty, |whole| whole.id.into()),
        version: extrinsic.version,
        signed_extensions: extrinsic
            .signed_extensions
            .into_iter()
            .map(|extension| v14::SignedExtensionMetadata {
                identifier: extension.identifier,
                ty: extension.ty,
                additional_signed: extension.additional_signed,
            })
            .collect(),
    };
    RuntimeMetadataV14 { types, pallets: pallets.collect(), extrinsic, ty }
}

/// Turns the named numbers into plain ones, as they were before the chain gave them names.
fn forget_newtypes(types: &mut PortableRegistry) {
    let of = |id: u32, types: &PortableRegistry| types.resolve(id).map(|ty| ty.type_def.clone());
    for index in 0..types.types.len() {
        let ty = &types.types[index].ty;
        let (Some(name), TypeDef::Composite(fields)) = (ty.path.segments.last(), &ty.type_def) else { continue };
        let (true, [field]) = (NEWTYPES.contains(&name.as_str()), fields.fields.as_slice()) else { continue };
        if let Some(number) = of(field.ty.id, types) {
            let ty = &mut types.types[index].ty;
            ty.type_def = number;
            ty.path = scale_info::Path { segments: Vec::new() };
        }
    }
}

/// Makes `byteleap_devchain::types::sp_core::crypto::AccountId32` read `sp_core::crypto::AccountId32`, as on the chain:
/// clients find types, dispatch errors among them, by path.
fn cut_path_prefix(types: &mut PortableRegistry) {
    let prefix: Vec<&str> = PATH_PREFIX.trim_end_matches("::").split("::").collect();
    for entry in &mut types.types {
        let segments = &mut entry.ty.path.segments;
        if segments.len() > prefix.len() && segments.iter().zip(&prefix).all(|(segment, cut)| segment == cut) {
            segments.drain(..prefix.len());
        }
    }
}

fn pallets(slot: Duration) -> Vec<PalletMetadata> {
    let slot_ms = u64::try_from(slot.as_millis()).unwrap_or(u64::MAX);
    vec![
        PalletMetadata {
            calls: Some(PalletCallMetadata { ty: meta_type::<frame_system::pallet::Call>() }),
            event: Some(PalletEventMetadata { ty: meta_type::<frame_system::pallet::Event>() }),
            error: Some(PalletErrorMetadata { ty: meta_type::<frame_system::pallet::Error>() }),
            constants: vec![
                constant("BlockHashCount", crate::state::KEPT_BLOCKS),
                constant("Version", runtime::version()),
                constant("SS58Prefix", 42_u16),
            ],
            ..pallet("System", 0)
        },
        PalletMetadata {
            calls: Some(PalletCallMetadata { ty: meta_type::<pallet_timestamp::pallet::Call>() }),
            constants: vec![constant("MinimumPeriod", slot_ms / 2)],
            ..pallet("Timestamp", 2)
        },
        PalletMetadata { constants: vec![constant("SlotDuration", slot_ms)], ..pallet("Aura", 3) },
        PalletMetadata {
            constants: vec![constant("ExistentialDeposit", EXISTENTIAL_DEPOSIT)],
            ..pallet("Balances", 5)
        },
        PalletMetadata {
            calls: Some(PalletCallMetadata { ty: meta_type::<pallet_subtensor::pallet::Call>() }),
            event: Some(PalletEventMetadata { ty: meta_type::<pallet_subtensor::pallet::Event>() }),
            error: Some(PalletErrorMetadata { ty: meta_type::<pallet_subtensor::pallet::Error>() }),
            ..pallet("SubtensorModule", pallet_subtensor::pallet::INDEX)
        },
        pallet("Commitments", 18),
        pallet("Drand", 26),
    ]
}

/// A pallet with its storage entries and nothing else.
fn pallet(name: &'static str, index: u8) -> PalletMetadata {
    let entries: Vec<StorageEntryMetadata> =
        storage::table().into_iter().filter(|description| description.pallet == name).map(storage_entry).collect();
    PalletMetadata {
        name,
        index,
        storage: (!entries.is_empty()).then_some(PalletStorageMetadata { prefix: name, entries }),
        calls: None,
        event: None,
        constants: Vec::new(),
        error: None,
        docs: Vec::new(),
    }
}

fn storage_entry(description: storage::Description) -> StorageEntryMetadata {
    let modifier = match description.default {
        Some(_) => StorageEntryModifier::Default,
        None => StorageEntryModifier::Optional,
    };
    let ty = match description.key {
        None => StorageEntryType::Plain(description.value),
        Some(key) => StorageEntryType::Map { hashers: description.hashers.to_vec(), key, value: description.value },
    };
    // An optional entry's default is the encoded `None`.
    let default = description.default.unwrap_or_else(|| vec![0]);
    StorageEntryMetadata { name: description.entry, modifier, ty, default, docs: Vec::new() }
}

fn constant<V: TypeInfo + Encode + 'static>(name: &'static str, value: V) -> PalletConstantMetadata {
    PalletConstantMetadata { name, ty: meta_type::<V>(), value: value.encode(), docs: Vec::new() }
}

fn extrinsic() -> ExtrinsicMetadata {
    ExtrinsicMetadata {
        version: crate::extrinsic::VERSION,
        address_ty: meta_type::<Address>(),
        call_ty: meta_type::<RuntimeCall>(),
        signature_ty: meta_type::<MultiSignature>(),
        extra_ty: meta_type::<Extensions>(),
        signed_extensions: runtime::extensions()
            .into_iter()
            .map(|extension| SignedExtensionMetadata {
                identifier: extension.identifier,
                ty: extension.explicit,
                additional_signed: extension.implicit,
            })
            .collect(),
    }
}

/// The runtime calls, grouped by interface in the order of the table.
fn apis(methods: &[Method]) -> Vec<RuntimeApiMetadata> {
    methods
        .chunk_by(|a, b| a.api == b.api)
        .map(|methods| RuntimeApiMetadata {
            name: methods[0].api,
            methods: methods.iter().map(api_method).collect(),
            docs: Vec::new(),
        })
        .collect()
}

fn api_method(method: &Method) -> RuntimeApiMethodMetadata {
    let inputs =
        method.inputs.iter().map(|(name, ty)| RuntimeApiMethodParamMetadata { name: *name, ty: *ty }).collect();
    RuntimeApiMethodMetadata { name: method.name, inputs, output: method.output, docs: Vec::new() }
}

#[cfg(test)]
mod tests {
    use frame_metadata::RuntimeMetadataPrefixed;
    use parity_scale_codec::Decode;

    use super::*;
    use crate::runtime_api;

    fn decoded() -> RuntimeMetadataV15 {
        let bytes = Metadata::new(&runtime_api::methods(), Duration::from_secs(12), false).v15;
        match RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 {
            RuntimeMetadata::V15(metadata) => metadata,
            other => panic!("metadata version {}", other.version()),
        }
    }

    #[test]
    fn the_account_is_type_0_under_the_chains_path() {
        let account = decoded().types.types[0].clone();
        assert_eq!(account.id, 0);
        assert_eq!(account.ty.path.segments, ["sp_core", "crypto", "AccountId32"]);
    }

    #[test]
    fn no_path_tells_of_this_crate() {
        for entry in decoded().types.types {
            let segments = entry.ty.path.segments;
            assert!(segments.first().is_none_or(|first| !PATH_PREFIX.starts_with(first.as_str())), "{segments:?}");
        }
    }

    #[test]
    fn in_the_old_shape_numbers_have_no_names() {
        let bytes = Metadata::new(&runtime_api::methods(), Duration::from_secs(12), true).v14;
        let RuntimeMetadata::V14(metadata) = RuntimeMetadataPrefixed::decode(&mut &bytes[..]).unwrap().1 else {
            panic!("version 14")
        };
        let names: Vec<_> = metadata.types.types.iter().filter_map(|entry| entry.ty.path.segments.last()).collect();
        assert!(names.iter().all(|name| !NEWTYPES.contains(&name.as_str())));
        let extrinsic = metadata.types.resolve(metadata.extrinsic.ty.id).unwrap();
        assert_eq!(extrinsic.path.segments.last().unwrap(), "UncheckedExtrinsic");
    }

    #[test]
    fn the_extensions_are_listed_as_their_bytes_are_read() {
        let metadata = decoded();
        let extensions = metadata.types.resolve(metadata.extrinsic.extra_ty.id).unwrap();
        let scale_info::TypeDef::Tuple(tuple) = &extensions.type_def else { panic!("a tuple") };
        let listed: Vec<u32> = metadata.extrinsic.signed_extensions.iter().map(|extension| extension.ty.id).collect();
        assert_eq!(listed, tuple.fields.iter().map(|field| field.id).collect::<Vec<_>>());
    }
}
