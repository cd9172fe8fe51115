//! The chain as clients see it: Substrate's JSON-RPC over WebSocket and HTTP, on loopback. The methods are those that
//! clients issue (chain spec 8.3), one module per namespace.
//!
//! No `chainHead_v1_*` or `archive_v1_*` method is offered: `subxt` picks the way it talks from the list of methods, and
//! the plain one is all it needs.

mod author;
mod chain;
mod dev;
mod params;
mod silence;
mod state;
mod system;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jsonrpsee::{
    RpcModule,
    core::RegisterMethodError,
    server::{
        BatchRequestConfig, RandomStringIdProvider, Server, ServerConfig, ServerHandle,
        middleware::rpc::RpcServiceBuilder,
    },
};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::node::Node;

/// Clients that are connected at once.
const CONNECTIONS: u32 = 128;
/// Subscriptions of one client.
const SUBSCRIPTIONS_PER_CONNECTION: u32 = 64;
/// Messages that wait for a slow client before it is made to wait itself.
const BUFFERED_MESSAGES: u32 = 256;
/// An extrinsic of the largest weight vector is under 1 KiB; this leaves room for batches.
const REQUEST_BYTES: u32 = 1 << 20;
/// The metadata as hexadecimal text is the largest answer by far.
const RESPONSE_BYTES: u32 = 4 << 20;
/// Requests in one batch.
const BATCH_REQUESTS: u32 = 64;
/// Length of a subscription's id. Ids are text as on a real node, for some clients lose numbers.
const SUBSCRIPTION_ID_CHARACTERS: usize = 16;

/// Where `dev_dropConnections` asks for it: for how long the server then stays away.
pub(crate) type Drops = mpsc::Sender<Duration>;

/// Starts to serve the chain; the address that was bound. With `drops` the controls for failure tests are offered too.
pub(crate) async fn serve(
    node: Arc<RwLock<Node>>,
    listen: SocketAddr,
    drops: Option<Drops>,
) -> std::io::Result<(SocketAddr, ServerHandle)> {
    let config = ServerConfig::builder()
        .max_connections(CONNECTIONS)
        .max_subscriptions_per_connection(SUBSCRIPTIONS_PER_CONNECTION)
        .set_message_buffer_capacity(BUFFERED_MESSAGES)
        .max_request_body_size(REQUEST_BYTES)
        .max_response_body_size(RESPONSE_BYTES)
        .set_batch_request_config(BatchRequestConfig::Limit(BATCH_REQUESTS))
        .set_id_provider(RandomStringIdProvider::new(SUBSCRIPTION_ID_CHARACTERS))
        .build();
    let silent = node.read().follow_silence();
    let gate = RpcServiceBuilder::new().layer_fn(move |service| silence::Gate { service, silent: silent.clone() });
    let server = Server::builder().set_config(config).set_rpc_middleware(gate).build(listen).await?;
    let address = server.local_addr()?;
    Ok((address, server.start(module(node, drops))))
}

/// Answers one request without a server; `None` if the text is no request.
pub(crate) async fn answer(node: Arc<RwLock<Node>>, request: &str) -> Option<String> {
    let (answer, _) = module(node, None).raw_json_request(request, 1).await.ok()?;
    Some(String::from(Box::<str>::from(answer)))
}

type Module = RpcModule<RwLock<Node>>;

/// All methods, and the one that lists them.
#[expect(clippy::expect_used, reason = "each name is registered once")]
fn module(node: Arc<RwLock<Node>>, drops: Option<Drops>) -> Module {
    let mut module = RpcModule::from_arc(node);
    register(&mut module, drops).expect("method names are distinct");
    module
}

fn register(module: &mut Module, drops: Option<Drops>) -> Result<(), RegisterMethodError> {
    system::register(module)?;
    chain::register(module)?;
    state::register(module)?;
    author::register(module)?;
    if let Some(drops) = drops {
        dev::register(module, drops)?;
    }

    let mut methods: Vec<&str> = module.method_names().chain(["rpc_methods"]).collect();
    methods.sort_unstable();
    let methods = serde_json::json!({ "methods": methods });
    module.register_method("rpc_methods", move |_, _, _| methods.clone())?;
    Ok(())
}
