//! Which of a library's files are worked on beside its checkpoints: what the builder reads, and
//! what it writes that no manifest names yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrwdb_state::Segment;

use crate::error::EngineError;
use crate::handle::Handle;

/// The state of a library's files, under a lock that is held for no more than a look.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Above every number that a file has, or is to have; 0 until a manifest was looked at.
    next: u64,
    /// Files that are written and that nothing names yet: nobody sweeps them.
    written: BTreeSet<u64>,
    /// Files that the builder works on: it takes none of them twice.
    claimed: BTreeSet<u64>,
    /// What could not be done to which files: not tried again before the next checkpoint.
    failed: BTreeSet<(Work, u64)>,
    /// What cannot be done, since they are damaged: not tried again before the next start, or
    /// unless it is asked for.
    hopeless: BTreeSet<(Work, u64)>,
    /// Those who keep the library from being closed.
    users: u32,
}

impl Files {
    /// A number that no file has, given the next one that the manifest on disk knows.
    pub(crate) fn take_number(&mut self, of_manifest: u64) -> u64 {
        let number = self.next.max(of_manifest).max(1);
        self.next = number + 1;
        number
    }

    /// Above every number taken so far.
    pub(crate) fn next_number(&self, of_manifest: u64) -> u64 {
        self.next.max(of_manifest).max(1)
    }

    /// Files that are written and that nothing names yet.
    pub(crate) fn written(&self) -> &BTreeSet<u64> {
        &self.written
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.users > 0
    }

    /// Whether nobody works on any file.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.claimed.is_empty()
    }

    /// Whether this can be begun on a segment: it is a file that nobody works on, and did not just
    /// fail.
    pub(crate) fn is_free(&self, work: Work, segment: &Segment) -> bool {
        number(segment).is_some_and(|number| {
            let of = (work, number);
            !self.claimed.contains(&number)
                && !self.failed.contains(&of)
                && !self.hopeless.contains(&of)
        })
    }

    /// Whether nobody works on a file, whatever failed before.
    pub(crate) fn is_unclaimed(&self, segment: &Segment) -> bool {
        number(segment).is_some_and(|number| !self.claimed.contains(&number))
    }

    pub(crate) fn forget_failures(&mut self) {
        self.failed.clear();
    }
}

fn number(segment: &Segment) -> Option<u64> {
    segment.file().map(arrwdb_state::FileSegment::number)
}

/// What is done to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Several become one, or one a smaller one.
    Merge,
    /// One gets a structure.
    Structure,
}

/// Keeps a library from being closed for being idle.
#[derive(Debug)]
pub(crate) struct KeptOpen(Arc<Handle>);

impl KeptOpen {
    pub(crate) fn new(handle: &Arc<Handle>) -> Self {
        handle.files.lock().users += 1;
        Self(handle.clone())
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.0.files.lock().users -= 1;
    }
}

/// Files that are worked on until this is dropped, and what is written from them.
#[derive(Debug)]
pub(crate) struct Claim {
    handle: Arc<Handle>,
    work: Work,
    inputs: Vec<u64>,
    output: Option<u64>,
    /// Nothing failed.
    done: bool,
    /// What failed will fail again.
    hopeless: bool,
}

impl Claim {
    /// Claims segments that are free for this. `files` are those of `handle`.
    pub(crate) fn new<'a>(
        handle: &Arc<Handle>,
        files: &mut Files,
        work: Work,
        inputs: impl Iterator<Item = &'a Segment>,
    ) -> Self {
        let inputs: Vec<u64> = inputs.filter_map(number).collect();
        files.claimed.extend(&inputs);
        Self { handle: handle.clone(), work, inputs, output: None, done: false, hopeless: false }
    }

    /// A number for the file that is written. Nobody sweeps it while the claim lasts.
    pub(crate) fn number_output(&mut self, of_manifest: u64) -> u64 {
        let mut files = self.handle.files.lock();
        let number = files.take_number(of_manifest);
        files.written.insert(number);
        self.output = Some(number);
        number
    }

    /// The number of the file that is written.
    pub(crate) fn output(&self) -> Option<u64> {
        self.output
    }

    /// The work failed, for this reason.
    pub(crate) fn fail(mut self, error: &EngineError) {
        self.hopeless = matches!(error, EngineError::Damaged { .. });
    }

    /// The work is done, or need not be done any more. Whoever uses what it wrote does so by now.
    pub(crate) fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut files = self.handle.files.lock();
        for input in &self.inputs {
            files.claimed.remove(input);
        }
        if !self.done {
            let failed = if self.hopeless { &mut files.hopeless } else { &mut files.failed };
            failed.extend(self.inputs.iter().map(|input| (self.work, *input)));
        }
        if let Some(output) = self.output {
            files.written.remove(&output);
        }
        drop(files);
        self.handle.progress.notify_waiters();
    }
}
