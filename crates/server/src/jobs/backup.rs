//! `backup`: the data directory is copied to where restore points are kept, while it is written to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrwdb_engine::backup::{self, BackupError, Progress, Site, Target};
use arrwdb_feed::{JobRun, Performed};
use serde_json::json;

use super::{LATER, Performer, Unable};
use crate::backups::open_target;
use crate::config::BackupConfig;

/// How often a backup says how far it is.
const TELL: Duration = Duration::from_millis(500);

/// Bytes that are moved.
#[derive(Debug, Default)]
struct Moved {
    expected: AtomicU64,
    moved: AtomicU64,
}

impl Progress for Moved {
    fn expect(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl From<BackupError> for Unable {
    fn from(error: BackupError) -> Self {
        let text = error.to_string();
        match error {
            // Another one runs, the store is away, or files went while they were read.
            BackupError::Running { .. } => Self::Later(text, LATER),
            BackupError::NoData { .. }
            | BackupError::Damaged { .. }
            | BackupError::Newer { .. }
            | BackupError::Foreign { .. } => Self::Failed(text),
            BackupError::Moving { .. }
            | BackupError::NoPoint { .. }
            | BackupError::SeqUnreachable { .. }
            | BackupError::TimeUnreachable { .. }
            | BackupError::NotEmpty { .. }
            | BackupError::Different { .. }
            | BackupError::Target { .. }
            | BackupError::Disk { .. }
            | BackupError::Log(_)
            | BackupError::Engine(_) => Self::Again(text),
        }
    }
}

impl Performer {
    pub(super) async fn backup(&self, run: &JobRun) -> Result<Performed, Unable> {
        run.check()?;
        let BackupConfig { target, keep, aws } = &self.backup;
        let target = target.as_deref().ok_or_else(|| {
            Unable::Failed("the server does not know where to: set BACKUP_TARGET".to_owned())
        })?;
        let aws = aws.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        let target = open_target(target, &aws.collect()).map_err(Unable::Failed)?;
        let moved = Arc::new(Moved::default());
        let work = take(self.data_dir.clone(), target.clone(), moved.clone());
        let mut work = tokio::task::spawn_blocking(work);
        let mut tell = tokio::time::interval(TELL);
        let taken = loop {
            tokio::select! {
                taken = &mut work => {
                    break taken.map_err(|error| Unable::Again(error.to_string()))??;
                }
                // What is sent by then is found by the next one.
                halt = run.halted() => return Err(halt.into()),
                _instant = tell.tick() => {
                    let mut progress = run.progress();
                    progress.current = moved.moved.load(Ordering::Relaxed);
                    progress.total = Some(moved.expected.load(Ordering::Relaxed));
                    run.advance(progress).await;
                }
            }
        };
        let forgotten = match *keep {
            None => 0,
            Some(keep) => {
                let forget = tokio::task::spawn_blocking(move || backup::forget(&*target, keep));
                let forgotten = forget.await.map_err(|error| Unable::Again(error.to_string()))?;
                forgotten?.points
            }
        };
        let mut progress = run.progress();
        progress.current = moved.moved.load(Ordering::Relaxed);
        progress.total = Some(progress.current);
        run.advance(progress).await;
        let result = json!({
            "restore_point_seq": taken.point.seq,
            "objects_sent": taken.objects_sent,
            "bytes_sent": taken.bytes_sent,
            "points_forgotten": forgotten,
        });
        Ok(Performed::Completed(result.to_string()))
    }
}

fn take(
    dir: PathBuf,
    target: Arc<dyn Target>,
    moved: Arc<Moved>,
) -> impl FnOnce() -> Result<backup::Taken, Unable> + Send {
    move || Ok(backup::take(&Site::system(dir), &*target, &*moved)?)
}
