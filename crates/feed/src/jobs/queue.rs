//! Which job is taken next.
//!
//! Priorities share the workers by weight and never starve each other: stride scheduling
//! (Waldspurger and Weihl, "Stride Scheduling", 1995), where each class has a pass that grows by the
//! inverse of its weight with every job taken from it, and the class with the least pass is next.
//! Within a class tenants take turns, of a tenant's jobs its libraries do (those of no library count as
//! one), and a library's jobs are taken in the order of their submission.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use arrwdb_engine::state::{
    Job, JobHead, JobId, JobPriority, JobState, LibraryId, TenantId, Timestamp,
};

/// What a pass grows by is this over the weight.
const STRIDE: u64 = 1 << 16;

const fn weight(priority: JobPriority) -> u64 {
    match priority {
        JobPriority::High => 16,
        JobPriority::Normal => 4,
        JobPriority::Low => 1,
    }
}

/// Jobs that wait for a worker.
#[derive(Debug, Default)]
pub(super) struct Queue {
    classes: BTreeMap<JobPriority, Class>,
    /// Jobs that are not taken before their time.
    delayed: BTreeMap<(Timestamp, JobId), (JobPriority, JobHead)>,
    /// All that wait, so that none waits twice; with the time before which it is not taken.
    waiting: HashMap<JobId, Option<Timestamp>>,
    /// The pass of the class that was taken from last.
    now: u64,
}

#[derive(Debug, Default)]
struct Class {
    pass: u64,
    tenants: HashMap<TenantId, Tenant>,
    turns: VecDeque<TenantId>,
}

/// A tenant's jobs of one class.
#[derive(Debug, Default)]
struct Tenant {
    libraries: HashMap<Option<LibraryId>, BTreeSet<JobId>>,
    turns: VecDeque<Option<LibraryId>>,
}

impl Tenant {
    fn enter(&mut self, id: JobId, library: Option<LibraryId>) {
        let jobs = self.libraries.entry(library).or_default();
        if jobs.is_empty() {
            self.turns.push_back(library);
        }
        jobs.insert(id);
    }

    fn take(&mut self) -> Option<JobId> {
        let library = self.turns.pop_front()?;
        let jobs = self.libraries.get_mut(&library)?;
        let id = jobs.pop_first()?;
        if jobs.is_empty() {
            self.libraries.remove(&library);
        } else {
            self.turns.push_back(library);
        }
        Some(id)
    }

    /// Whether a job was one of these; O(libraries) at worst.
    fn remove(&mut self, id: JobId) -> bool {
        let found = self
            .libraries
            .iter_mut()
            .find_map(|(library, jobs)| jobs.remove(&id).then_some((*library, jobs.is_empty())));
        if let Some((library, true)) = found {
            self.libraries.remove(&library);
            self.turns.retain(|turn| *turn != library);
        }
        found.is_some()
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

impl Queue {
    /// Has a job wait for a worker, from its time on. One that waits already waits as it says now.
    pub(super) fn offer(&mut self, job: &Job, now: Timestamp) {
        let not_before = match job.state {
            JobState::Pending { not_before } => not_before.filter(|time| *time > now),
            JobState::Running { .. } => None,
            JobState::Finished { .. } => return,
        };
        self.wait(job, not_before);
    }

    /// Has a job wait for a worker alone, whatever time it says itself.
    pub(super) fn hurry(&mut self, job: &Job) {
        self.wait(job, None);
    }

    /// Has a job wait until this time, whatever it says itself.
    pub(super) fn put_off(&mut self, job: &Job, until: Timestamp) {
        self.wait(job, Some(until));
    }

    fn wait(&mut self, job: &Job, not_before: Option<Timestamp>) {
        let head = job.spec.head;
        match self.waiting.insert(head.id, not_before) {
            // As it is.
            Some(before) if before == not_before => return,
            Some(Some(time)) => {
                self.delayed.remove(&(time, head.id));
            }
            // It is in the queue proper, and will be looked at when it is taken.
            Some(None) => return,
            None => {}
        }
        let place = (job.spec.priority, head);
        match not_before {
            Some(time) => {
                self.delayed.insert((time, head.id), place);
            }
            None => self.enter(place),
        }
    }

    fn enter(&mut self, (priority, head): (JobPriority, JobHead)) {
        let class = self.classes.entry(priority).or_default();
        if class.turns.is_empty() {
            // A class that was idle has saved nothing up, and waits as long as between two of its jobs.
            class.pass = class.pass.max(self.now + STRIDE / weight(priority));
        }
        let jobs = class.tenants.entry(head.tenant).or_default();
        if jobs.is_empty() {
            class.turns.push_back(head.tenant);
        }
        jobs.enter(head.id, head.library);
    }

    /// Has jobs wait in their classes whose time has come; whether there were any.
    pub(super) fn ripen(&mut self, now: Timestamp) -> bool {
        let mut ripe = false;
        while let Some(entry) = self.delayed.first_entry().filter(|it| it.key().0 <= now) {
            let ((_time, id), place) = entry.remove_entry();
            self.waiting.insert(id, None);
            self.enter(place);
            ripe = true;
        }
        ripe
    }

    /// Takes the next job.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<JobId> {
        self.ripen(now);
        let busy = self.classes.iter_mut().filter(|(_priority, class)| !class.turns.is_empty());
        // Of classes with the same pass, the higher goes first.
        let (priority, class) =
            busy.min_by_key(|(priority, class)| (class.pass, std::cmp::Reverse(**priority)))?;
        self.now = class.pass;
        class.pass += STRIDE / weight(*priority);
        let tenant = class.turns.pop_front()?;
        let jobs = class.tenants.get_mut(&tenant)?;
        let id = jobs.take()?;
        if jobs.is_empty() {
            class.tenants.remove(&tenant);
        } else {
            class.turns.push_back(tenant);
        }
        self.waiting.remove(&id);
        Some(id)
    }

    /// When the next job that is delayed can be taken.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.delayed.keys().next().map(|(time, _id)| *time)
    }

    /// Forgets a job that is not wanted any more. O(tenants and their libraries) at worst.
    pub(super) fn remove(&mut self, id: JobId) {
        match self.waiting.remove(&id) {
            None => {}
            Some(Some(time)) => drop(self.delayed.remove(&(time, id))),
            Some(None) => {
                for class in self.classes.values_mut() {
                    let Class { pass: _, tenants, turns } = class;
                    tenants.retain(|tenant, jobs| {
                        let last = jobs.remove(id) && jobs.is_empty();
                        if last {
                            turns.retain(|turn| turn != tenant);
                        }
                        !last
                    });
                }
            }
        }
    }

    /// How many jobs wait, those that are delayed included.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrwdb_engine::state::{JobKind, JobProgress, JobSpec, Seq};

    use super::*;

    fn job(n: u8, tenant: u64, priority: JobPriority, not_before: Option<i64>) -> Job {
        let head = JobHead {
            id: JobId::from_bytes([n; 16]),
            tenant: TenantId::new(tenant),
            library: None,
            kind: JobKind::Purge,
        };
        let spec = JobSpec {
            head,
            priority,
            parameters: "{}".into(),
            input: None,
            retries_max: 0,
            run_at: None,
            submitted_at: Timestamp::from_micros(0),
            schedule: None,
        };
        Job {
            spec: Arc::new(spec),
            state: JobState::Pending { not_before: not_before.map(Timestamp::from_micros) },
            started_at: None,
            progress: JobProgress::default(),
            retries: 0,
            error: None,
            submitted: Seq::START,
            changed: Seq::START,
        }
    }

    fn all(queue: &mut Queue, now: i64) -> Vec<u8> {
        let now = Timestamp::from_micros(now);
        std::iter::from_fn(|| queue.take(now)).map(|id| id.to_bytes()[0]).collect()
    }

    #[test]
    fn priorities_share_by_weight_and_none_starves() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        for n in 0..80 {
            queue.offer(&job(n, 0, JobPriority::High, None), now);
        }
        for n in 80..100 {
            queue.offer(&job(n, 0, JobPriority::Normal, None), now);
        }
        for n in 100..105 {
            queue.offer(&job(n, 0, JobPriority::Low, None), now);
        }
        assert_eq!(queue.len(), 105);
        let taken = all(&mut queue, 0);
        assert_eq!(taken.len(), 105);
        // Of any 21 in a row, while all wait: 16, 4 and 1.
        for round in taken.chunks_exact(21) {
            let of =
                |range: std::ops::Range<u8>| round.iter().filter(|n| range.contains(*n)).count();
            assert_eq!((of(0..80), of(80..100), of(100..105)), (16, 4, 1), "{round:?}");
        }
    }

    #[test]
    fn a_class_that_was_idle_does_not_shut_out_the_others() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        for n in 0..100 {
            queue.offer(&job(n, 0, JobPriority::Low, None), now);
        }
        for _job in 0..50 {
            queue.take(now).unwrap();
        }
        for n in 100..150 {
            queue.offer(&job(n, 0, JobPriority::Normal, None), now);
        }
        let first = (0..25).filter_map(|_job| queue.take(now)).collect::<Vec<_>>();
        let low = first.iter().filter(|id| id.to_bytes()[0] < 100).count();
        assert_eq!(low, 5, "one in five is of the lower class");
    }

    #[test]
    fn a_job_of_a_lower_class_comes_after_its_share_of_the_higher() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        for n in 0..40 {
            queue.offer(&job(n, 0, JobPriority::High, None), now);
        }
        queue.offer(&job(50, 0, JobPriority::Low, None), now);
        assert_eq!(all(&mut queue, 0).iter().position(|n| *n == 50), Some(16));
        for n in 60..70 {
            queue.offer(&job(n, 0, JobPriority::High, None), now);
        }
        queue.take(now).unwrap();
        queue.offer(&job(80, 0, JobPriority::Low, None), now);
        assert_eq!(all(&mut queue, 0).last(), Some(&80));
    }

    #[test]
    fn tenants_take_turns_and_each_ones_jobs_are_in_order() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        for n in 0..6 {
            queue.offer(&job(n, 1, JobPriority::Normal, None), now);
        }
        for n in 10..12 {
            queue.offer(&job(n, 2, JobPriority::Normal, None), now);
        }
        queue.offer(&job(20, 3, JobPriority::Normal, None), now);
        assert_eq!(all(&mut queue, 0), [0, 10, 20, 1, 11, 2, 3, 4, 5]);
    }

    #[test]
    fn a_tenants_libraries_take_turns_and_each_ones_jobs_are_in_order() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        let of = |n: u8, tenant: u64, library: Option<u8>| {
            let mut job = job(n, tenant, JobPriority::Normal, None);
            let mut spec = JobSpec::clone(&job.spec);
            spec.head.library = library.map(|library| LibraryId::from_bytes([library; 16]));
            job.spec = Arc::new(spec);
            job
        };
        for n in 0..5 {
            queue.offer(&of(n, 1, Some(1)), now);
        }
        queue.offer(&of(10, 1, Some(2)), now);
        queue.offer(&of(11, 1, Some(2)), now);
        queue.offer(&of(20, 1, None), now);
        queue.offer(&of(30, 2, Some(3)), now);
        queue.remove(JobId::from_bytes([10; 16]));
        assert_eq!(all(&mut queue, 0), [0, 30, 11, 20, 1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten_and_the_others_keep_their_turns() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        for n in 0..9 {
            queue.offer(&job(n, u64::from(n % 3), JobPriority::Normal, None), now);
            queue.offer(&job(10 + n, 0, JobPriority::High, Some(50)), now);
        }
        for n in [4, 5, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 99] {
            queue.remove(JobId::from_bytes([n; 16]));
        }
        assert_eq!((queue.len(), queue.next_due()), (6, Some(Timestamp::from_micros(50))));
        assert_eq!(all(&mut queue, 0), [0, 1, 2, 3, 6]);
        assert_eq!(all(&mut queue, 50), [14]);
        assert_eq!((queue.len(), queue.next_due()), (0, None));
    }

    #[test]
    fn a_job_is_not_taken_before_its_time_nor_twice() {
        let mut queue = Queue::default();
        let now = Timestamp::from_micros(0);
        queue.offer(&job(1, 0, JobPriority::Normal, Some(50)), now);
        queue.offer(&job(2, 0, JobPriority::Normal, Some(20)), now);
        queue.offer(&job(2, 0, JobPriority::Normal, Some(20)), now);
        queue.offer(&job(3, 0, JobPriority::Normal, None), now);
        queue.offer(&job(3, 0, JobPriority::Normal, None), now);
        assert_eq!(queue.next_due(), Some(Timestamp::from_micros(20)));
        assert_eq!(all(&mut queue, 19), [3]);
        assert_eq!(all(&mut queue, 20), [2]);
        // Tried again sooner than was said before.
        queue.offer(&job(1, 0, JobPriority::Normal, Some(30)), now);
        assert_eq!(all(&mut queue, 30), [1]);
        // Put off by who took it, and offered again before that.
        for until in [None, Some(60)] {
            queue.put_off(&job(1, 0, JobPriority::Normal, None), Timestamp::from_micros(60));
            assert!(all(&mut queue, 59).is_empty());
            if until.is_none() {
                queue.offer(&job(1, 0, JobPriority::Normal, None), now);
            }
            assert_eq!(all(&mut queue, until.unwrap_or(59)), [1]);
        }
        assert_eq!((queue.len(), queue.next_due()), (0, None));
    }
}
