//! The log as bytes, for those who follow it closely and need only some of what its records hold.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrwdb_log::{LogError, Record, Records, Stream};
use arrwdb_state::{Catalog, LibraryId, Seq, TenantId};
use bytes::Bytes;

use crate::engine::{Engine, Inner};
use crate::follow::FollowError;

/// What a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The catalog.
    Catalog,
    /// A library, which may have been deleted since.
    Library(LibraryId),
    /// Jobs or webhooks.
    Work,
}

impl Subject {
    fn of(stream: Stream) -> Self {
        if stream == Stream::CATALOG {
            return Self::Catalog;
        }
        if stream == Stream::WORK {
            return Self::Work;
        }
        Self::Library(LibraryId::from_bytes(stream.0))
    }
}

/// A durable record, not decoded.
#[derive(Debug, Clone)]
pub struct RawRecord {
    /// Its sequence number.
    pub seq: Seq,
    /// What it changed.
    pub subject: Subject,
    /// The bytes of its entry, in the parts that it was written in, or in one.
    pub parts: Arc<[Bytes]>,
    /// When it was durable, where that is remembered: of late records only.
    pub durable_at: Option<Instant>,
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedRecords {
    /// All.
    All,
    /// Those of a library's generations and of their companions, the catalog's, and those of jobs.
    Library(Vec<LibraryId>),
    /// The catalog's.
    Catalog,
}

impl Engine {
    /// At most `limit` durable records after `after`, in order, from memory, where the newest are
    /// kept; `None` where older ones are wanted, which [`Engine::read_records`] has.
    pub fn recent_records(&self, after: Seq, limit: usize) -> Option<Vec<RawRecord>> {
        let recent = self.0.log.recent(after.get(), limit)?;
        let raw = recent.into_iter().map(|record| RawRecord {
            seq: Seq::new(record.seq),
            subject: Subject::of(record.stream),
            parts: record.parts,
            durable_at: Some(record.durable_at),
        });
        Some(raw.collect())
    }

    /// Durable records after `after`, in order, as of now, from disk: reading them blocks the
    /// thread. Where only some are wanted the others cost next to nothing. Whoever has come to the
    /// end asks [`Engine::check_kept`], as records may be trimmed meanwhile.
    pub fn read_records(
        &self,
        after: Seq,
        wanted: WantedRecords,
    ) -> Result<impl Iterator<Item = Result<RawRecord, FollowError>> + Send + use<>, FollowError>
    {
        self.check_kept(after)?;
        let log = &self.0.log;
        let of = |stream| log.read_stream(stream, after.get());
        let streams = match wanted {
            WantedRecords::All => vec![log.read(after.get())?],
            WantedRecords::Catalog => vec![of(Stream::CATALOG)?],
            WantedRecords::Library(generations) => {
                let mut streams = vec![of(Stream::CATALOG)?, of(Stream::WORK)?];
                for id in generations {
                    streams.push(of(Stream(id.to_bytes()))?);
                    streams.push(of(Stream(id.companion().to_bytes()))?);
                }
                streams
            }
        };
        let streams = streams.into_iter().map(Iterator::peekable).collect();
        Ok(InOrder(streams).map(|record| {
            let record = record?;
            Ok(RawRecord {
                seq: Seq::new(record.seq),
                subject: Subject::of(record.stream),
                parts: [record.payload].into(),
                durable_at: None,
            })
        }))
    }

    /// Refuses if records after `after` are no longer kept.
    pub fn check_kept(&self, after: Seq) -> Result<(), FollowError> {
        let first = Seq::new(self.0.log.first());
        if after.get().saturating_add(1) < first.get() {
            return Err(FollowError::Trimmed { first });
        }
        Ok(())
    }

    /// The oldest number from which on all records are kept.
    pub fn oldest(&self) -> Seq {
        Seq::new(self.0.log.first())
    }

    /// All libraries there are, whosever they are.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog.load_full()
    }

    /// Whose a library is.
    pub fn tenant_of(&self, library: LibraryId) -> Option<TenantId> {
        self.0.catalog.load().library(library).map(|spec| spec.tenant)
    }

    /// Whether a durable record is applied, so that every read sees it.
    pub fn is_applied(&self, subject: Subject, seq: Seq) -> bool {
        self.0.is_applied(subject, seq)
    }

    /// Waits until a durable record is applied.
    pub async fn applied(&self, subject: Subject, seq: Seq) {
        let inner = &self.0;
        if subject == Subject::Work {
            let mut applied = inner.work.applied();
            while !inner.is_applied(subject, seq) && applied.changed().await.is_ok() {}
            return;
        }
        loop {
            let handle = match subject {
                Subject::Catalog | Subject::Work => None,
                Subject::Library(id) => match inner.handle(id) {
                    Ok(handle) => Some(handle),
                    // It is deleted, or made by a record before this one, which is waited for.
                    Err(_gone) => return,
                },
            };
            // Registered before looking, so that no progress in between is missed.
            let progress = handle.as_ref().map_or(&inner.catalog_progress, |it| &it.progress);
            let progressed = progress.notified();
            if inner.is_applied(subject, seq) {
                return;
            }
            progressed.await;
        }
    }
}

impl Inner {
    fn is_applied(&self, subject: Subject, seq: Seq) -> bool {
        if subject == Subject::Work {
            return self.is_work_at(seq);
        }
        let Subject::Library(id) = subject else {
            // What follows from a record of the catalog is done when nothing of it is unapplied.
            let done = self.catalog_unapplied.published_to() >= seq.get();
            return done && self.catalog.load().applied() >= seq;
        };
        // What a damaged file keeps from being applied is applied by the next start; nothing
        // later is written before.
        self.handle(id).is_ok_and(|handle| {
            handle.is_at(seq, self.log.durable()) || handle.stopped.load(Ordering::SeqCst)
        })
    }
}

/// Records of some streams, in their order.
struct InOrder(Vec<Peekable<Records>>);

impl Iterator for InOrder {
    type Item = Result<Record, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next: Option<(u64, usize)> = None;
        for (place, stream) in self.0.iter_mut().enumerate() {
            let number = match stream.peek() {
                None => continue,
                Some(Ok(record)) => record.seq,
                // Comes first, and is the end.
                Some(Err(_)) => 0,
            };
            next = next.into_iter().chain([(number, place)]).min();
        }
        self.0.get_mut(next?.1)?.next()
    }
}
