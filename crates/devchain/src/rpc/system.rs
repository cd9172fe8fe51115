//! `system_*`: who this node is. Accounts' next nonces live here too, under both their names.

use byteleap_protocol::hotkey::Hotkey;
use jsonrpsee::{core::RegisterMethodError, types::ErrorObjectOwned};
use serde_json::json;

use super::{Module, params::invalid_params};
use crate::types::AccountId32;

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("system_chain", |_, _, _| "Bittensor development chain")?;
    module.register_method("system_name", |_, _, _| env!("CARGO_PKG_NAME"))?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method("system_chainType", |_, _, _| "Development")?;
    module.register_method(
        "system_properties",
        |_, _, _| json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }),
    )?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;

    module.register_method("system_accountNextIndex", |params, node, _| {
        let account: Hotkey = params.one::<String>()?.parse().map_err(invalid_params)?;
        Ok::<_, ErrorObjectOwned>(node.read().next_nonce(AccountId32(account.0)))
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")?;
    Ok(())
}
