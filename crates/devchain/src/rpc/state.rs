//! `state_*`: values, keys, runtime calls and the runtime's version, at any kept block.

use jsonrpsee::{
    core::{RegisterMethodError, SubscriptionError},
    types::ErrorObjectOwned,
};
use serde_json::{Value, json};

use super::{
    Module,
    params::{Hash, Hex, client_error, invalid_params, message, view_at},
};
use crate::runtime;

/// Keys of one page.
const PAGE_KEYS: usize = 1000;
/// Keys of one query.
const QUERY_KEYS: usize = 1000;

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("state_getStorage", |params, node, _| {
        let mut params = params.sequence();
        let (key, at): (Hex, Option<Hash>) = (params.next()?, params.optional_next()?);
        let node = node.read();
        Ok::<_, ErrorObjectOwned>(view_at(&node, at)?.raw(&key.0).map(|value| Hex(value.to_vec())))
    })?;
    module.register_alias("state_getStorageAt", "state_getStorage")?;

    module.register_method("state_getKeysPaged", |params, node, _| {
        let mut params = params.sequence();
        let prefix: Hex = params.next()?;
        let count: usize = params.next()?;
        let (start, at): (Option<Hex>, Option<Hash>) = (params.optional_next()?, params.optional_next()?);
        if count > PAGE_KEYS {
            return Err(invalid_params(format_args!("at most {PAGE_KEYS} keys a page")));
        }
        let node = node.read();
        let start = start.map_or_else(Vec::new, |start| start.0);
        let keys = view_at(&node, at)?.keys(&prefix.0, &start).take(count);
        Ok(keys.map(|key| Hex(key.to_vec())).collect::<Vec<_>>())
    })?;

    module.register_method("state_queryStorageAt", |params, node, _| {
        let mut params = params.sequence();
        let (keys, at): (Vec<Hex>, Option<Hash>) = (params.next()?, params.optional_next()?);
        if keys.len() > QUERY_KEYS {
            return Err(invalid_params(format_args!("at most {QUERY_KEYS} keys a query")));
        }
        let node = node.read();
        let view = view_at(&node, at)?;
        let block = at.unwrap_or(Hash(node.blocks().head().hash));
        let changes: Vec<(Hex, Option<Hex>)> = keys
            .into_iter()
            .map(|key| {
                let value = view.raw(&key.0).map(|value| Hex(value.to_vec()));
                (key, value)
            })
            .collect();
        Ok(json!([{ "block": block, "changes": changes }]))
    })?;

    // A metagraph is work enough to stay off the threads that serve everybody.
    module.register_blocking_method("state_call", |params, node, _| {
        let mut params = params.sequence();
        let (name, arguments): (String, Hex) = (params.next()?, params.next()?);
        let at: Option<Hash> = params.optional_next()?;
        let node = node.read();
        node.call(view_at(&node, at)?, &name, &arguments.0).map(Hex).map_err(client_error)
    })?;

    module.register_method("state_getMetadata", |_, node, _| {
        Ok::<_, ErrorObjectOwned>(Hex(node.read().metadata_v14().to_vec()))
    })?;
    module.register_method("state_getRuntimeVersion", |_, _, _| runtime_version())?;
    module.register_alias("chain_getRuntimeVersion", "state_getRuntimeVersion")?;
    module.register_subscription(
        "state_subscribeRuntimeVersion",
        "state_runtimeVersion",
        "state_unsubscribeRuntimeVersion",
        |_, sink, _, _| async move {
            let sink = sink.accept().await?;
            sink.send(message(&runtime_version())?).await?;
            // The runtime never changes; there is nothing more to say.
            sink.closed().await;
            Ok::<_, SubscriptionError>(())
        },
    )?;
    Ok(())
}

fn runtime_version() -> Value {
    let version = runtime::version();
    json!({
        "specName": version.spec_name,
        "implName": version.impl_name,
        "authoringVersion": version.authoring_version,
        "specVersion": version.spec_version,
        "implVersion": version.impl_version,
        "apis": [],
        "transactionVersion": version.transaction_version,
        "stateVersion": version.system_version,
    })
}
