//! The server on a disk whose syncs do nothing, for measuring what syncing costs. What it
//! acknowledges does not survive a power failure: it is not part of the product.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::EngineParts;
use arrwdb_engine::log::disk::{Access, Disk, File, OsDisk};
use arrwdb_server::config::{Config, Sources};
use arrwdb_server::serve::{listen, serve_with};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let sources = Sources { environment: std::env::vars().collect(), ..Sources::default() };
    let config = Config::load(&sources)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let listener = listen(&config)?;
    let stop = std::future::pending();
    let parts =
        |embedder| EngineParts { disk: Arc::new(Unsynced), ..EngineParts::system(embedder) };
    runtime.block_on(serve_with(config, listener, stop, parts))?;
    Ok(())
}

#[derive(Debug)]
struct Unsynced;

#[derive(Debug)]
struct UnsyncedFile(Arc<dyn File>);

impl Disk for Unsynced {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(OsDisk.create(path)?)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(OsDisk.open(path, access)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(dir)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
        OsDisk.lock(path)
    }
}

impl File for UnsyncedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.allocate(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn os_file(&self) -> Option<&std::fs::File> {
        self.0.os_file()
    }
}
