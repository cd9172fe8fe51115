//! The chain on disk: every block with what it wrote, in one SQLite file, saved before anyone hears of the block. A chain that
//! is started on the file of an earlier one goes on where that one ended, even after `kill -9`.
//!
//! One thread owns the file, and answers each order before the next block begins.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use parity_scale_codec::{Decode, Encode};
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::oneshot;

use crate::{
    block::{Block, Header},
    state::KEPT_BLOCKS,
    types::H256,
};

/// The tables; a column of bytes holds what travels, as SCALE.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, header BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS xt (block INTEGER NOT NULL, position INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY (block, position)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS kv (key BLOB NOT NULL, block INTEGER NOT NULL, value BLOB,
        PRIMARY KEY (key, block)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS kv_by_block ON kv (block);
    CREATE TABLE IF NOT EXISTS genesis (hash BLOB NOT NULL);
";

/// Why a chain cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written.
    #[error("the development chain's file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The database's reason.
        source: sqlx::Error,
    },
    /// The file holds another chain.
    #[error("{0} holds a chain of another genesis: give another file, or remove this one to begin anew")]
    OtherGenesis(PathBuf),
    /// A row is not what this program writes.
    #[error("{0} is damaged: remove it to begin anew")]
    Damaged(PathBuf),
    /// The thread cannot be started, or is gone.
    #[error("the development chain's file has lost its thread")]
    Gone,
}

/// A value that a block wrote, or deleted.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// A block and what it wrote.
pub(crate) struct Sealed {
    pub(crate) block: Block,
    pub(crate) writes: Vec<Write>,
}

/// What an earlier run left: the kept blocks, oldest first, and every value that some of them reads, with the number of the
/// block that wrote it, in that order.
pub(crate) struct Saved {
    pub(crate) blocks: Vec<Block>,
    pub(crate) values: Vec<(u32, Write)>,
}

/// An order to save a block, and where to answer.
type Order = (Sealed, mpsc::SyncSender<Result<(), StoreError>>);

/// See the [module](self).
pub(crate) struct Store {
    orders: Option<mpsc::SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens a file, or makes it, for the chain of that genesis; what it holds of it.
    pub(crate) async fn open(path: PathBuf, genesis: H256) -> Result<(Self, Option<Saved>), StoreError> {
        let (orders, received) = mpsc::sync_channel(0);
        let (opened, opening) = oneshot::channel();
        let thread = thread::Builder::new().name("devchain-store".to_owned());
        let thread = thread.spawn(move || run(&path, genesis, opened, &received)).map_err(|_| StoreError::Gone)?;
        let store = Self { orders: Some(orders), thread: Some(thread) };
        let saved = opening.await.map_err(|_| StoreError::Gone)??;
        Ok((store, saved))
    }

    /// Saves a block; one of the same number is replaced.
    pub(crate) fn save(&self, sealed: Sealed) -> Result<(), StoreError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let orders = self.orders.as_ref().ok_or(StoreError::Gone)?;
        orders.send((sealed, reply)).map_err(|_| StoreError::Gone)?;
        answer.recv().map_err(|_| StoreError::Gone)?
    }
}

impl Drop for Store {
    /// Closes the file, so that the next run finds it whole and unlocked.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

/// The thread: opens the file, then saves one block after another until nobody orders any more.
fn run(
    path: &Path,
    genesis: H256,
    opened: oneshot::Sender<Result<Option<Saved>, StoreError>>,
    orders: &mpsc::Receiver<Order>,
) {
    let file = |source| StoreError::File { path: path.to_owned(), source };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let mut connection = match runtime.block_on(open(path, genesis)) {
        Ok((connection, saved)) => {
            // Whoever started this has given up if nobody waits.
            let _ = opened.send(Ok(saved));
            connection
        }
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    while let Ok((sealed, reply)) = orders.recv() {
        let _ = reply.send(runtime.block_on(save(&mut connection, &sealed)).map_err(file));
    }
    if let Err(error) = runtime.block_on(connection.close()) {
        tracing::warn!(%error, path = %path.display(), "the development chain's file was not closed");
    }
}

async fn open(path: &Path, genesis: H256) -> Result<(SqliteConnection, Option<Saved>), StoreError> {
    let file = |source| StoreError::File { path: path.to_owned(), source };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(file)?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await.map_err(file)?;
    let known = sqlx::query("SELECT hash FROM genesis").fetch_optional(&mut connection).await.map_err(file)?;
    let Some(known) = known else {
        let insert = sqlx::query("INSERT INTO genesis (hash) VALUES ($1)").bind(genesis.0.to_vec());
        insert.execute(&mut connection).await.map_err(file)?;
        return Ok((connection, None));
    };
    if known.try_get::<Vec<u8>, _>(0).map_err(file)? != genesis.0 {
        return Err(StoreError::OtherGenesis(path.to_owned()));
    }
    let (blocks, extrinsics, values) = read(&mut connection).await.map_err(file)?;
    // A first run that ended before its first block left a genesis alone.
    let saved = decode(blocks, extrinsics, values).ok_or_else(|| StoreError::Damaged(path.to_owned()))?;
    Ok((connection, Some(saved).filter(|saved| !saved.blocks.is_empty())))
}

type Rows = (Vec<Vec<u8>>, Vec<(i64, Vec<u8>)>, Vec<(i64, Vec<u8>, Option<Vec<u8>>)>);

async fn read(connection: &mut SqliteConnection) -> Result<Rows, sqlx::Error> {
    let blocks = sqlx::query("SELECT header FROM block ORDER BY number").fetch_all(&mut *connection).await?;
    let extrinsics =
        sqlx::query("SELECT block, bytes FROM xt ORDER BY block, position").fetch_all(&mut *connection).await?;
    let values =
        sqlx::query("SELECT block, key, value FROM kv ORDER BY block, key").fetch_all(&mut *connection).await?;
    Ok((
        blocks.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
        extrinsics.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, sqlx::Error>>()?,
        values
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect::<Result<_, sqlx::Error>>()?,
    ))
}

/// Puts rows together; `None` if they do not fit.
fn decode(
    headers: Vec<Vec<u8>>,
    extrinsics: Vec<(i64, Vec<u8>)>,
    values: Vec<(i64, Vec<u8>, Option<Vec<u8>>)>,
) -> Option<Saved> {
    let mut blocks = Vec::with_capacity(headers.len());
    let mut extrinsics = extrinsics.into_iter().peekable();
    for header in headers {
        let header = Header::decode(&mut &header[..]).ok()?;
        let number = i64::from(header.number);
        let mut own = Vec::new();
        while let Some((_, bytes)) = extrinsics.next_if(|(block, _)| *block == number) {
            own.push(bytes);
        }
        blocks.push(Block { hash: header.hash(), header, extrinsics: own });
    }
    let values = values
        .into_iter()
        .map(|(block, key, value)| Some((u32::try_from(block).ok()?, (key, value))))
        .collect::<Option<_>>()?;
    Some(Saved { blocks, values })
}

/// Saves a block in one transaction, and forgets what the chain itself has forgotten by then.
async fn save(connection: &mut SqliteConnection, Sealed { block, writes }: &Sealed) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let number = i64::from(block.header.number);
    sqlx::query("INSERT OR REPLACE INTO block (number, hash, header) VALUES ($1, $2, $3)")
        .bind(number)
        .bind(block.hash.0.to_vec())
        .bind(block.header.encode())
        .execute(&mut *transaction)
        .await?;
    for (position, bytes) in (0_i64..).zip(&block.extrinsics) {
        sqlx::query("INSERT OR REPLACE INTO xt (block, position, bytes) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(position)
            .bind(bytes)
            .execute(&mut *transaction)
            .await?;
    }
    for (key, value) in writes {
        sqlx::query("INSERT OR REPLACE INTO kv (key, block, value) VALUES ($1, $2, $3)")
            .bind(key)
            .bind(number)
            .bind(value.as_ref())
            .execute(&mut *transaction)
            .await?;
    }
    let oldest = number - i64::from(KEPT_BLOCKS - 1);
    if oldest > 0 {
        for forget in [
            "DELETE FROM block WHERE number < $1",
            "DELETE FROM xt WHERE block < $1",
            "DELETE FROM kv WHERE block < $1 AND key IN (SELECT key FROM kv WHERE block = $1)",
        ] {
            sqlx::query(forget).bind(oldest).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await
}
