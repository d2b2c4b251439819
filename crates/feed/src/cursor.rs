//! A place in the log that moves on.

use arrwdb_engine::state::Seq;
use arrwdb_engine::{
    BATCH_BYTES_MAX, Change, Engine, EngineError, FollowError, RawRecord, WantedRecords,
};
use bytes::Bytes;

/// Records read at a time: what a follower holds at most.
const BATCH_RECORDS_MAX: usize = 256;

/// A follower's place in the log.
#[derive(Debug, Clone)]
pub struct Cursor {
    engine: Engine,
    after: Seq,
}

impl Cursor {
    /// A cursor that sees everything after `after`; [`Seq::START`] is everything that is kept.
    pub fn new(engine: Engine, after: Seq) -> Self {
        Self { engine, after }
    }

    /// The last record seen.
    pub fn position(&self) -> Seq {
        self.after
    }

    /// The next records, at least one; waits until there is one. The position moves past them:
    /// whoever needs them again after a crash saves the position after their effect, not before.
    ///
    /// # Errors
    /// [`FollowError::Trimmed`] if records after the position are no longer kept.
    pub async fn next(&mut self) -> Result<Vec<Change>, FollowError> {
        loop {
            let changes = self.engine.changes_after(self.after, BATCH_RECORDS_MAX).await?;
            if let Some(last) = changes.last() {
                self.after = last.seq;
                return Ok(changes);
            }
            self.engine.advanced_past(self.after).await?;
        }
    }

    /// As [`Cursor::next`], of records that are not decoded.
    pub(crate) async fn next_records(&mut self) -> Result<Vec<RawRecord>, FollowError> {
        let records = records_after(&self.engine, self.after).await?;
        if let Some(last) = records.last() {
            self.after = last.seq;
        }
        Ok(records)
    }
}

/// The next durable records after `after`, at least one, from memory where they are late ones;
/// waits until there is one.
pub(crate) async fn records_after(
    engine: &Engine,
    after: Seq,
) -> Result<Vec<RawRecord>, FollowError> {
    loop {
        match engine.recent_records(after, BATCH_RECORDS_MAX) {
            Some(batch) if batch.is_empty() => engine.advanced_past(after).await?,
            // In memory they are already.
            Some(batch) => return Ok(batch),
            None => {
                let reader = engine.clone();
                let read = tokio::task::spawn_blocking(move || {
                    let records = reader.read_records(after, WantedRecords::All)?;
                    batch(records, BATCH_RECORDS_MAX, BATCH_BYTES_MAX)
                });
                let failed = |error: tokio::task::JoinError| {
                    FollowError::Engine(EngineError::Storage { detail: error.to_string() })
                };
                let batch = read.await.map_err(failed)??;
                if !batch.is_empty() {
                    return Ok(batch);
                }
            }
        }
        // A follower that never has to wait lets others work.
        tokio::task::consume_budget().await;
    }
}

/// Records up to a number of them, or until they are so many bytes; the first one always.
fn batch(
    records: impl Iterator<Item = Result<RawRecord, FollowError>>,
    records_max: usize,
    bytes_max: usize,
) -> Result<Vec<RawRecord>, FollowError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for record in records {
        let record = record?;
        bytes += record.parts.iter().map(Bytes::len).sum::<usize>();
        batch.push(record);
        if batch.len() >= records_max || bytes >= bytes_max {
            break;
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use arrwdb_engine::Subject;

    use super::*;

    #[test]
    fn a_batch_is_bounded_in_bytes_and_a_record_of_any_size_passes() {
        let record = |seq, bytes: usize| RawRecord {
            seq: Seq::new(seq),
            subject: Subject::Catalog,
            parts: [Bytes::from(vec![0; bytes])].into(),
            durable_at: None,
        };
        let count = |sizes: &[usize], records_max| {
            let records = (1..).zip(sizes).map(|(seq, bytes)| Ok(record(seq, *bytes)));
            batch(records, records_max, 100).map(|batch| batch.len()).ok()
        };
        assert_eq!(count(&[5000, 1], 9), Some(1));
        assert_eq!(count(&[40, 40, 40, 40], 9), Some(3));
        assert_eq!(count(&[1, 1, 1, 1], 2), Some(2));
        assert_eq!(count(&[], 2), Some(0));
    }
}
