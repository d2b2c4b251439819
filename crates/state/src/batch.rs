//! Batches as their callers know them: many documents written by one request. What a library means
//! does not depend on them; they are noted so that those who follow it see where one begins and how
//! it ended.

use uuid::Uuid;

use crate::codec::{DecodeError, Reader, Writer};

/// One batch, from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(Uuid);

impl BatchId {
    /// Wraps a UUID; every value is valid.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of these 16 bytes, in the order in which UUIDs are written.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, in the order in which UUIDs are written.
    pub const fn to_bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }
}

impl std::fmt::Display for BatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// What a batch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOperation {
    /// Adds or replaces documents that came in one body.
    Add,
    /// Deletes documents.
    Delete,
    /// Adds or replaces documents as they stream in.
    Import,
}

impl BatchOperation {
    const ALL: [Self; 3] = [Self::Add, Self::Delete, Self::Import];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Delete => "delete",
            Self::Import => "import",
        }
    }

    /// Its number in an entry, which never changes.
    const fn number(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::Delete => 2,
            Self::Import => 3,
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = from.u8("batch operation")?;
        let found = Self::ALL.into_iter().find(|operation| operation.number() == number);
        found.ok_or_else(|| from.error("a batch operation this build knows"))
    }
}

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// All of it was worked on; single documents may have been refused.
    Completed,
    /// It broke off, or nothing of it was written.
    Failed,
}

impl BatchOutcome {
    /// How one ended of which so many documents came about and so many were refused, and which was
    /// worked through or broke off.
    pub fn of((successful, failed): (u64, u64), finished: bool) -> Self {
        let nothing = successful == 0 && failed > 0;
        if finished && !nothing { Self::Completed } else { Self::Failed }
    }
}

/// The beginning or the end of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchNote {
    /// Which batch.
    pub id: BatchId,
    /// What it does.
    pub operation: BatchOperation,
    /// Documents in it, where that is known.
    pub total: Option<u64>,
    /// How it ended; `None` at its beginning.
    pub end: Option<BatchEnd>,
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEnd {
    /// Documents that were written, or deleted.
    pub successful: u64,
    /// Documents that were refused.
    pub failed: u64,
    /// How it ended.
    pub outcome: BatchOutcome,
}

impl BatchNote {
    /// `id 16 | u8 operation | u8 known, u64 total?`, and of an end `u64 successful | u64 failed |
    /// u8 outcome`.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.id(self.id.to_bytes());
        out.u8(self.operation.number());
        out.u8(u8::from(self.total.is_some()));
        if let Some(total) = self.total {
            out.u64(total);
        }
        if let Some(BatchEnd { successful, failed, outcome }) = self.end {
            out.u64(successful);
            out.u64(failed);
            out.u8(match outcome {
                BatchOutcome::Completed => 0,
                BatchOutcome::Failed => 1,
            });
        }
    }

    /// Reads what [`Self::write`] wrote of a beginning, or of an end.
    pub(crate) fn read(from: &mut Reader<'_>, ends: bool) -> Result<Self, DecodeError> {
        let id = BatchId::new(from.uuid("batch id")?);
        let operation = BatchOperation::read(from)?;
        let total = if from.flag("total")? { Some(from.u64("total")?) } else { None };
        let mut note = Self { id, operation, total, end: None };
        if ends {
            let (successful, failed) = (from.u64("successful")?, from.u64("failed")?);
            let failure = from.flag("batch outcome")?;
            let outcome = if failure { BatchOutcome::Failed } else { BatchOutcome::Completed };
            note.end = Some(BatchEnd { successful, failed, outcome });
        }
        Ok(note)
    }
}
