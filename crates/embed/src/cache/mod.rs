//! Vectors of texts seen before.
//!
//! - E3: found by provider, variant, model, input type, dimension and hash of the text, and by
//!   nothing less. No text, and nothing that a text can be read from, is stored.
//! - Bounded in memory and on disk. Damage is a miss, never an error.
//! - Storing never waits: a vector goes to memory at once and to the thread that writes the files
//!   by a short queue; when that is full, the file does without.

mod check;
mod files;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use quick_cache::Weighter;
use sha2::{Digest as _, Sha256};

use crate::config::CacheConfig;
use crate::models::ModelSpec;
use crate::provider::InputType;
pub use check::{CacheFile, check_file};
pub use files::FILE_NAMES;
use files::{ENTRY_BYTES_MAX, Files};

/// Entries between the callers and the thread that writes: at most 4 MB of the largest vectors.
const QUEUE_ENTRIES_MAX: usize = 256;

/// What an entry takes in memory beside its values.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// Raised when the same text would get another key: one for each shape of what is hashed.
const KEY_VERSION: u8 = 1;
const KEY_VERSION_WITH_VARIANT: u8 = 2;
const KEY_VERSION_OF_PICTURE: u8 = 3;

/// E3: everything a vector depends on, hashed. Nothing of the text can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey(pub(crate) [u8; 32]);

impl CacheKey {
    /// The key of `text`; `variant` is its provider's.
    pub(crate) fn new(model: &ModelSpec, variant: &str, input: InputType, text: &str) -> Self {
        let version = if variant.is_empty() { KEY_VERSION } else { KEY_VERSION_WITH_VARIANT };
        Self::of(version, (model, variant), input, text)
    }

    /// The key of the picture at `url`, which no text has.
    pub(crate) fn of_picture(
        model: &ModelSpec,
        variant: &str,
        input: InputType,
        url: &str,
    ) -> Self {
        Self::of(KEY_VERSION_OF_PICTURE, (model, variant), input, url)
    }

    fn of(version: u8, (model, variant): (&ModelSpec, &str), input: InputType, text: &str) -> Self {
        let mut hash = Sha256::new();
        let input: u8 = match input {
            InputType::Document => 1,
            InputType::Query => 2,
        };
        let (provider, name) = (model.provider.name(), model.model.as_bytes());
        // Every field has a fixed length or its length before it, so that no two run together.
        hash.update([version, input, u8::try_from(provider.len()).unwrap_or(u8::MAX)]);
        hash.update(provider);
        hash.update(model.dimension.to_le_bytes());
        hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(name);
        if version != KEY_VERSION {
            hash.update(u64::try_from(variant.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(variant);
        }
        hash.update(text);
        CacheKey(hash.finalize().into())
    }
}

type Memory = quick_cache::sync::Cache<CacheKey, Arc<[f32]>, ByBytes>;

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Arc<[f32]>> for ByBytes {
    fn weight(&self, _key: &CacheKey, vector: &Arc<[f32]>) -> u64 {
        u64::try_from(vector.len() * 4 + ENTRY_OVERHEAD_BYTES).unwrap_or(u64::MAX)
    }
}

/// Vectors in memory, over vectors in files. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<Tiers>);

#[derive(Debug)]
struct Tiers {
    memory: Option<Memory>,
    disk: Option<Disk>,
}

#[derive(Debug)]
struct Disk {
    files: Arc<Files>,
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
}

#[derive(Debug)]
struct Writer {
    queue: SyncSender<Order>,
    thread: std::thread::JoinHandle<()>,
}

/// What the writing thread is told.
#[derive(Debug)]
enum Order {
    Append(CacheKey, Arc<[f32]>),
    /// Forget everything; the answer is how many bytes the files held.
    Clear(tokio::sync::oneshot::Sender<std::io::Result<u64>>),
}

impl Cache {
    /// Opens the cache; without a usable directory it is one in memory. Its files are read by
    /// and by, on the thread that writes them.
    pub(crate) fn open(config: &CacheConfig) -> Cache {
        let vectors = usize::try_from(config.memory_bytes_max / 1_632).unwrap_or(usize::MAX);
        let memory = (config.memory_bytes_max > 0)
            .then(|| Memory::with_weighter(vectors.max(16), config.memory_bytes_max, ByBytes));
        // Less than this does not hold one entry in each file.
        let disk_bytes_min = 4 * ENTRY_BYTES_MAX;
        let disk = config
            .dir
            .as_deref()
            .filter(|_| config.disk_bytes_max >= disk_bytes_min)
            .and_then(|dir| Disk::open(dir, config.disk_bytes_max));
        Cache(Arc::new(Tiers { memory, disk }))
    }

    /// The vectors of `keys` that are known, each of `dimension` values. Never blocks the
    /// runtime: files are read on a thread for that.
    pub(crate) async fn get(&self, keys: &[CacheKey], dimension: u32) -> Vec<Option<Arc<[f32]>>> {
        let memory = |key| self.0.memory.as_ref().and_then(|memory| memory.get(key));
        let mut found: Vec<Option<Arc<[f32]>>> = keys.iter().map(memory).collect();
        let Some(disk) = &self.0.disk else { return found };
        let on_disk: Vec<(usize, CacheKey)> = keys
            .iter()
            .enumerate()
            .filter(|&(row, key)| matches!(found.get(row), Some(None)) && disk.files.has(key))
            .map(|(row, key)| (row, *key))
            .collect();
        if on_disk.is_empty() {
            return found;
        }
        let cache = self.clone();
        let read = tokio::task::spawn_blocking(move || cache.read_files(on_disk, dimension));
        // A reader that died is a miss like any other.
        for (row, vector) in read.await.unwrap_or_default() {
            if let Some(place) = found.get_mut(row) {
                *place = Some(vector);
            }
        }
        found
    }

    fn read_files(
        &self,
        wanted: Vec<(usize, CacheKey)>,
        dimension: u32,
    ) -> Vec<(usize, Arc<[f32]>)> {
        let Some(disk) = &self.0.disk else { return Vec::new() };
        let read = |(row, key): (usize, CacheKey)| {
            let found = disk.files.get(&key, dimension)?;
            let vector: Arc<[f32]> = Arc::from(found.vector);
            if let Some(memory) = &self.0.memory {
                memory.insert(key, Arc::clone(&vector));
            }
            if found.is_old {
                disk.write(key, Arc::clone(&vector));
            }
            Some((row, vector))
        };
        wanted.into_iter().filter_map(read).collect()
    }

    /// Remembers a vector, without waiting for anything.
    pub(crate) fn put(&self, key: &CacheKey, vector: &[f32]) {
        if self.0.memory.is_none() && self.0.disk.is_none() {
            return;
        }
        let vector: Arc<[f32]> = Arc::from(vector);
        if let Some(disk) = &self.0.disk {
            disk.write(*key, Arc::clone(&vector));
        }
        if let Some(memory) = &self.0.memory {
            memory.insert(*key, vector);
        }
    }

    /// Forgets everything, and removes it from the files; the bytes that memory and files held.
    pub(crate) async fn clear(&self) -> std::io::Result<u64> {
        let mut bytes = self.memory_bytes();
        if let Some(disk) = &self.0.disk {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let cleared = match disk.order(Order::Clear(reply)).await {
                Ok(()) => answer.await.ok(),
                Err(_thread_ended) => None,
            };
            bytes += if let Some(cleared) = cleared {
                cleared?
            } else {
                // The thread that writes has ended, so nobody writes beside this one.
                let files = disk.files.clone();
                let cleared = tokio::task::spawn_blocking(move || files.clear()).await;
                cleared.map_err(std::io::Error::other)??
            };
        }
        if let Some(memory) = &self.0.memory {
            memory.clear();
        }
        Ok(bytes)
    }

    /// Bytes of the vectors in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.0.memory.as_ref().map_or(0, Memory::weight)
    }

    /// Bytes of the files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.0.disk.as_ref().map_or(0, |disk| disk.files.bytes())
    }

    /// Writes what is queued; later entries go to memory only.
    pub(crate) async fn close(&self) {
        let writer = self.0.disk.as_ref().and_then(|disk| disk.writer.lock().take());
        let Some(Writer { queue, thread }) = writer else { return };
        drop(queue);
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
        if !matches!(joined, Ok(true)) {
            tracing::warn!("the embedding cache's thread did not end well");
        }
    }
}

impl Disk {
    fn open(dir: &Path, bytes_max: u64) -> Option<Disk> {
        let files = Arc::new(Files::new(dir, bytes_max));
        let (queue, entries) = sync_channel(QUEUE_ENTRIES_MAX);
        let shared = Arc::clone(&files);
        let thread = std::thread::Builder::new()
            .name("embed-cache".to_owned())
            .spawn(move || write_files(&shared, &entries));
        match thread {
            Ok(thread) => Some(Disk { files, writer: Mutex::new(Some(Writer { queue, thread })) }),
            Err(error) => {
                tracing::warn!(%error, "embeddings are cached in memory only");
                None
            }
        }
    }

    /// Hands an order over, waiting for room in the queue.
    async fn order(&self, order: Order) -> std::io::Result<()> {
        let queue = self.writer.lock().as_ref().map(|writer| writer.queue.clone());
        let ended = || std::io::Error::other("the cache writes no files any more");
        let queue = queue.ok_or_else(ended)?;
        let sent = tokio::task::spawn_blocking(move || queue.send(order).is_ok()).await;
        if matches!(sent, Ok(true)) { Ok(()) } else { Err(ended()) }
    }

    fn write(&self, key: CacheKey, vector: Arc<[f32]>) {
        let dropped = match &*self.writer.lock() {
            Some(writer) => writer.queue.try_send(Order::Append(key, vector)).is_err(),
            None => true,
        };
        if dropped {
            tracing::trace!("an embedding is not cached on disk");
        }
    }
}

/// Reads the files' indexes, then writes what comes. A failing disk ends the writing, not the
/// embedder: what is in the files already can still be read.
fn write_files(files: &Files, entries: &Receiver<Order>) {
    if let Err(error) = files.load() {
        let dir = files.dir().display();
        tracing::warn!(%error, %dir, "embeddings are cached in memory only: make the directory writable and restart");
        return;
    }
    while let Ok(order) = entries.recv() {
        let (key, vector) = match order {
            Order::Append(key, vector) => (key, vector),
            Order::Clear(reply) => {
                // Whoever asked may have left.
                drop(reply.send(files.clear()));
                continue;
            }
        };
        if let Err(error) = files.append(&key, &vector) {
            let dir = files.dir().display();
            tracing::warn!(%error, %dir, "no more embeddings are cached on disk: make room there and restart");
            return;
        }
    }
}

#[cfg(test)]
mod tests;
