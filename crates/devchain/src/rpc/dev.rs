//! `dev_*`: what no real node offers, for failure tests: time, blocks and finality on command, and every way to let a client
//! down. Offered only where the chain was started for it.

use std::time::Duration;

use byteleap_protocol::hotkey::Hotkey;
use jsonrpsee::{core::RegisterMethodError, types::ErrorObjectOwned};
use serde_json::Value;

use super::{Drops, Module, params::invalid_params};
use crate::control;

/// What the names begin with.
pub(super) const PREFIX: &str = "dev_";

/// Blocks that one request makes at most.
const ADVANCED_BLOCKS: u32 = 100_000;

pub(super) fn register(module: &mut Module, drops: Drops) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("dev_advance", |params, node, _| {
        let blocks: u32 = params.one()?;
        if blocks > ADVANCED_BLOCKS {
            return Err(invalid_params(format_args!("at most {ADVANCED_BLOCKS} blocks at once")));
        }
        Ok::<_, ErrorObjectOwned>(control::advance(&node, blocks))
    })?;
    module.register_blocking_method("dev_advanceEpoch", |params, node, _| {
        control::advance_epoch(&node, params.one()?).map_err(invalid_params)
    })?;
    module.register_method("dev_setTime", |params, node, _| {
        control::set_time(node, params.one()?);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_setHyperparameter", |params, node, _| {
        let mut params = params.sequence();
        let (netuid, name, value): (u16, String, Value) = (params.next()?, params.next()?, params.next()?);
        control::set_hyperparameter(node, netuid, &name, value).map_err(invalid_params)
    })?;
    module.register_method("dev_setStake", |params, node, _| {
        let mut params = params.sequence();
        let (netuid, hotkey, rao): (u16, String, u64) = (params.next()?, params.next()?, params.next()?);
        let hotkey: Hotkey = hotkey.parse().map_err(invalid_params)?;
        control::set_stake(node, netuid, hotkey, rao);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_failNext", |params, node, _| {
        let name: String = params.one()?;
        control::fail_next(node, &name).map_err(invalid_params)
    })?;
    module.register_method("dev_keepBlocksEmpty", |params, node, _| {
        node.write().keep_blocks_empty(params.one()?);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_forgetPending", |_, node, _| node.write().forget_pending())?;
    module.register_method("dev_lagFinality", |params, node, _| {
        node.write().lag_finality(params.one()?);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_stopFinality", |params, node, _| {
        node.write().stop_finality(params.one()?);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_replaceHead", |_, node, _| node.write().replace_head())?;
    module.register_method("dev_silence", |params, node, _| {
        node.write().silence(params.one()?);
        Ok::<_, ErrorObjectOwned>(())
    })?;
    module.register_method("dev_dropConnections", move |params, _, _| {
        let away_ms: u64 = params.one()?;
        drops.try_send(Duration::from_millis(away_ms)).map_err(|_| invalid_params("connections are being dropped"))
    })?;
    Ok(())
}
