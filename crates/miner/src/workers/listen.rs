//! The port that workers dial: accepts connections, answers the HTTP upgrade, and hands WebSockets on.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use byteleap_protocol::frame::MAX_WORKER_FRAME_BYTES;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{self, Desk},
    upgrade::{self, Answer},
};

/// Read buffer of one connection, in bytes. It is allocated at once, so the library's 128 KiB would cost a hundred
/// idle workers 13 MB.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Connections that have not registered yet, all peers together; more wait in the kernel's queue, so that nobody is
/// turned away when all workers come back at once.
const MAX_UNREGISTERED: usize = 32;

/// How long the HTTP head may take, and our answer to it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed `accept`, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves workers until `stop`, then waits until every connection is closed.
pub(crate) async fn serve(listener: TcpListener, desk: Desk, stop: CancellationToken) {
    let unregistered = Arc::new(Semaphore::new(MAX_UNREGISTERED));
    let connections = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            Ok(permit) = Arc::clone(&unregistered).acquire_owned() => permit,
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; check the limit of open files");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (desk, stop) = (desk.clone(), stop.clone());
        connections.spawn(async move {
            if let Some(socket) = handshake(stream, peer).await {
                connection::serve(socket, peer, desk, stop, permit).await;
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers the HTTP head; gives a WebSocket if it asked for one properly.
async fn handshake(mut stream: TcpStream, peer: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    // Frames are small and answered one by one; waiting to fill a segment would only add delay.
    let _ = stream.set_nodelay(true);
    let exchange = async {
        let (head, rest) = upgrade::read_head(&mut stream).await.map_err(|error| error.to_string())?;
        let answer = upgrade::answer(&head);
        let (Answer::Switch(text) | Answer::Refuse(text)) = &answer;
        stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())?;
        match answer {
            Answer::Switch(_) => Ok(rest),
            Answer::Refuse(text) => {
                let _ = stream.shutdown().await;
                Err(text.lines().next().unwrap_or_default().to_owned())
            }
        }
    };
    let refused = || metrics::counter!("worker_upgrades_refused_total").increment(1);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, exchange).await {
        Ok(Ok(rest)) => {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER_BYTES)
                .write_buffer_size(0)
                .max_message_size(Some(MAX_WORKER_FRAME_BYTES))
                .max_frame_size(Some(MAX_WORKER_FRAME_BYTES));
            Some(WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await)
        }
        Ok(Err(reason)) => {
            refused();
            tracing::debug!(%peer, reason, "no worker connection");
            None
        }
        Err(_) => {
            refused();
            tracing::debug!(%peer, "no worker connection: handshake timed out");
            None
        }
    }
}
