//! Where the marketplace listens: for validators, and for commands.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use byteleap_protocol::hotkey::{Keypair, Signer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::book::Book;
use super::talk;
use super::{Command, Misbehaviour};

/// Commands that sessions may be behind with.
const BACKLOG: usize = 64;

/// How to run a marketplace.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its book lies.
    pub folder: PathBuf,
    /// Port for validators on loopback; 0 takes a free one.
    pub port: u16,
    /// Port for commands on loopback; 0 takes a free one.
    pub control_port: u16,
}

/// Why a marketplace does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its book cannot be opened.
    #[error("the marketplace's folder {0} cannot be used")]
    Book(PathBuf, #[source] io::Error),
    /// A port is taken.
    #[error("the marketplace cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// A running marketplace; dropping it ends it.
#[derive(Debug)]
pub struct Marketplace {
    shared: Arc<Shared>,
    control: SocketAddr,
    commands: JoinHandle<()>,
}

/// What sessions and commands share.
#[derive(Debug)]
pub(super) struct Shared {
    address: SocketAddr,
    book: Mutex<Book>,
    /// What every session is to do.
    pub(super) commands: broadcast::Sender<Command>,
    /// How to behave.
    pub(super) behaviour: watch::Sender<Misbehaviour>,
    /// Takes validators; none while the marketplace is down.
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Marketplace {
    fn drop(&mut self) {
        self.commands.abort();
        self.shared.go_down();
    }
}

impl Marketplace {
    /// Starts to listen.
    ///
    /// # Errors
    /// [`ServeError`]: its folder or a port cannot be used.
    pub async fn start(options: &Options) -> Result<Self, ServeError> {
        let book = Book::open(&options.folder).map_err(|error| ServeError::Book(options.folder.clone(), error))?;
        let (listener, address) = listen(options.port).await?;
        let (control_listener, control) = listen(options.control_port).await?;
        let shared = Arc::new(Shared {
            address,
            book: Mutex::new(book),
            commands: broadcast::Sender::new(BACKLOG),
            behaviour: watch::Sender::new(Misbehaviour::None),
            listening: Mutex::new(None),
        });
        shared.come_up(listener);
        let routes =
            Router::new().route("/commands", post(obey)).route("/status", get(status)).with_state(Arc::clone(&shared));
        let commands = tokio::spawn(async move {
            // Serving ends with the process alone.
            let _ = axum::serve(control_listener, routes).await;
        });
        Ok(Self { shared, control, commands })
    }

    /// Where validators find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.shared.address)
    }

    /// Where it takes commands.
    #[must_use]
    pub fn control(&self) -> SocketAddr {
        self.control
    }
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), ServeError> {
    listen_on(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}

async fn listen_on(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |error| ServeError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Shared {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key to speak with now.
    pub(super) fn key(&self) -> Keypair {
        match *self.behaviour.borrow() {
            Misbehaviour::WrongKey => Keypair::from_seed(&[0xbb; 32]),
            _ => self.book().key(),
        }
    }

    fn come_up(self: &Arc<Self>, listener: TcpListener) {
        let shared = Arc::clone(self);
        let listening = tokio::spawn(async move {
            // Sessions end with whoever took them.
            let mut sessions = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, peer)) = accepted {
                            sessions.spawn(talk::serve(Arc::clone(&shared), stream, peer));
                        }
                    }
                    Some(_) = sessions.join_next() => {}
                }
            }
        });
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
    }

    fn go_down(&self) {
        if let Some(listening) = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take() {
            listening.abort();
        }
    }
}

async fn obey(State(shared): State<Arc<Shared>>, Json(command): Json<Command>) -> Response {
    match carry_out(&shared, command).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::CONFLICT, format!("{error}\n")).into_response(),
    }
}

async fn carry_out(shared: &Arc<Shared>, command: Command) -> io::Result<()> {
    match &command {
        Command::Lease { worker, score } => shared.book().lease(worker.clone(), *score)?,
        Command::Forget { worker } => shared.book().forget(worker)?,
        Command::Tokens(policy) => shared.book().tokens = *policy,
        Command::Misbehave(behaviour) => {
            shared.behaviour.send_replace(*behaviour);
        }
        Command::Down => {
            shared.go_down();
            return Ok(());
        }
        Command::Up => {
            let is_up = shared.listening.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            if !is_up {
                let (listener, _) = listen_on(shared.address).await.map_err(io::Error::other)?;
                shared.come_up(listener);
            }
            return Ok(());
        }
        Command::Config(_) | Command::Task(_) => {}
    }
    // Without a session nobody has to be told: a new one begins with the leases.
    let _ = shared.commands.send(command);
    Ok(())
}

async fn status(State(shared): State<Arc<Shared>>) -> axum::Json<Value> {
    let is_up = shared.listening.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    let behaviour = *shared.behaviour.borrow();
    let book = shared.book();
    let leases: serde_json::Map<String, Value> =
        book.leases.iter().map(|(worker, score)| (worker.to_string(), json!(score))).collect();
    axum::Json(json!({
        "url": format!("ws://{}/ws", shared.address),
        "up": is_up,
        "hotkey": book.key().hotkey(),
        "behaviour": behaviour,
        "tokens": book.tokens,
        "leases": leases,
        "heard": book.heard,
    }))
}
