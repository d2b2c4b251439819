//! What embedding costs: counted in memory as it happens, and recorded once a second.
//!
//! What a record does not have yet is lost with the process: of what was paid for, that is the last
//! second at most; of what was free, the last minute. What cannot be recorded (the disk is full) is
//! kept in memory and tried again, and is lost as well if the process is killed meanwhile; counts
//! that would grow past their bound are summed up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrwdb_embed::{EmbedError, InputType, Meter, ModelSpec, Picture, Usage};
use arrwdb_state::limits::USAGE_ROWS_PER_RECORD_MAX;
use arrwdb_state::{
    Day, LibraryId, LibrarySpec, Money, TenantId, UsageKey, UsageRow, Used, WorkCommand,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::budgets::BudgetRefusal;
use crate::engine::Inner;
use crate::error::EngineError;
use crate::search::model_of;

/// How long what was paid for waits to be recorded.
const PAID_WAIT: Duration = Duration::from_secs(1);
/// How long what was free does: it is nobody's bill.
const FREE_WAIT: Duration = Duration::from_mins(1);
/// How long what cannot be recorded waits to be tried again.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Rows at which they are recorded at once.
const ROWS_FULL: usize = 4096;
/// Rows beyond which libraries are not told apart, while nothing can be recorded.
const ROWS_MAX: usize = 8192;
/// Rows beyond which only days and tenants are told apart.
const ROWS_SUMMED_MAX: usize = 12_288;
/// Rows beyond which only tenants are.
const ROWS_OF_DAYS_MAX: usize = 14_336;
/// Models of which figures are kept since the start; further ones share one. Names come from
/// callers.
const MODELS_MAX: usize = 256;

/// What was used and is not recorded yet, and figures since the start.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pending: Mutex<Pending>,
    /// Told when something has to be recorded sooner than was known.
    wake: Notify,
    since_start: Mutex<BTreeMap<(String, String), Used>>,
    refusals: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    rows: BTreeMap<UsageKey, Used>,
    /// Rows on their way to the log: they are published once that many records of usage are.
    sending: Option<(u64, Vec<UsageRow>)>,
    /// Since when there is something.
    first: Option<Instant>,
    /// Since when there is something that was paid for.
    paid: Option<Instant>,
    /// Until when it is not tried again, however much there is.
    not_before: Option<Instant>,
}

/// What embedding with a model cost since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCost {
    /// Who embedded.
    pub provider: String,
    /// With what.
    pub model: String,
    /// What was used.
    pub used: Used,
}

/// What embedding cost since the start.
#[derive(Debug, Clone, PartialEq)]
pub struct CostFigures {
    /// By model: of the first few hundred, and of the others together.
    pub models: Vec<ModelCost>,
    /// How often a budget refused it.
    pub refusals: u64,
    /// Rows of what was used that are not recorded yet.
    pub unrecorded: u64,
}

impl Pending {
    /// When what is pending is to be recorded.
    fn due(&self) -> Option<Instant> {
        let full = self.first.filter(|_since| self.rows.len() >= ROWS_FULL);
        let paid = self.paid.map(|since| since + PAID_WAIT);
        let free = self.first.map(|since| since + FREE_WAIT);
        let due = [full, paid, free].into_iter().flatten().min();
        due.map(|due| self.not_before.map_or(due, |until| due.max(until)))
    }

    fn add(&mut self, key: UsageKey, used: &Used) {
        let key = self.fitting(key);
        self.rows.entry(key).or_default().add(used);
        let now = Instant::now();
        self.first.get_or_insert(now);
        if used.cost > Money::ZERO {
            self.paid.get_or_insert(now);
        }
    }

    /// The row that `key` is counted in: its own, unless there are too many.
    fn fitting(&self, key: UsageKey) -> UsageKey {
        let fits = |key: &UsageKey, max| self.rows.len() < max || self.rows.contains_key(key);
        if fits(&key, ROWS_MAX) {
            return key;
        }
        let key = UsageKey { library: None, ..key };
        if fits(&key, ROWS_SUMMED_MAX) {
            return key;
        }
        // The day as long as may be: it is what budgets of a day or a month go by.
        let key = UsageKey { provider: "".into(), model: "".into(), ..key };
        if fits(&key, ROWS_OF_DAYS_MAX) { key } else { UsageKey { day: Day::OLDER, ..key } }
    }

    /// Everything that the `records` that are published do not have.
    fn unpublished(&self, records: u64) -> impl Iterator<Item = (&UsageKey, &Used)> {
        let sending = self.sending.iter().filter(move |(number, _rows)| *number > records);
        let sending = sending.flat_map(|(_number, rows)| rows);
        sending.map(|row| (&row.key, &row.used)).chain(&self.rows)
    }
}

impl Ledger {
    fn add(&self, key: UsageKey, used: &Used) {
        self.note(&key, used);
        let mut pending = self.pending.lock();
        let before = pending.due();
        pending.add(key, used);
        let sooner = pending.due() != before;
        drop(pending);
        if sooner {
            self.wake.notify_one();
        }
    }

    fn note(&self, key: &UsageKey, used: &Used) {
        let mut models = self.since_start.lock();
        let model = (key.provider.to_string(), key.model.to_string());
        let full = models.len() >= MODELS_MAX && !models.contains_key(&model);
        let model = if full { ("other".to_owned(), "other".to_owned()) } else { model };
        models.entry(model).or_default().add(used);
    }

    /// What was used since the start.
    pub(crate) fn figures(&self) -> CostFigures {
        let of = |((provider, model), used): (&(String, String), &Used)| ModelCost {
            provider: provider.clone(),
            model: model.clone(),
            used: *used,
        };
        let models = self.since_start.lock().iter().map(of).collect();
        let pending = self.pending.lock();
        let sending = pending.sending.as_ref().map_or(0, |(_number, rows)| rows.len());
        let unrecorded = (pending.rows.len() + sending) as u64;
        CostFigures { models, refusals: self.refusals.load(Ordering::Relaxed), unrecorded }
    }

    /// Has `see` add everything that was used and is not part of what is published to what
    /// `published` finds in that. It says as well how many records of usage there are, and is asked
    /// while nothing can become part of it unseen.
    pub(crate) fn with_unpublished<T>(
        &self,
        published: impl FnOnce() -> (u64, T),
        mut see: impl FnMut(&mut T, &UsageKey, &Used),
    ) -> T {
        let pending = self.pending.lock();
        let (records, mut found) = published();
        for (key, used) in pending.unpublished(records) {
            see(&mut found, key, used);
        }
        found
    }

    /// Takes what is to be recorded as the record of this number: of one day, so that no budget
    /// begins anew before it was looked at what was spent of it before.
    fn begin(&self, number: u64) -> Vec<UsageRow> {
        let mut pending = self.pending.lock();
        let mut rows = std::mem::take(&mut pending.rows);
        let day = rows.keys().next().map(|key| key.day);
        let of_day = rows.keys().take_while(|key| Some(key.day) == day);
        let count = of_day.take(USAGE_ROWS_PER_RECORD_MAX).count();
        if let Some(first) = rows.keys().nth(count).cloned() {
            pending.rows = rows.split_off(&first);
        }
        let now = Instant::now();
        pending.first = (!pending.rows.is_empty()).then_some(now);
        pending.paid = pending.first;
        let rows: Vec<_> = rows.into_iter().map(|(key, used)| UsageRow { key, used }).collect();
        pending.sending = Some((number, rows.clone()));
        rows
    }

    /// What was taken is recorded; or it is not, and is taken again later.
    fn end(&self, recorded: bool) {
        let mut pending = self.pending.lock();
        let Some((_number, rows)) = pending.sending.take() else { return };
        pending.not_before = (!recorded).then(|| Instant::now() + RETRY_WAIT);
        if !recorded {
            for UsageRow { key, used } in rows {
                pending.add(key, &used);
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.pending.lock().due()
    }
}

/// Records what is used until the engine closes; [`flush`] does the rest.
pub(crate) async fn run(engine: Arc<Inner>) {
    let closing = engine.upkeep.closing().clone();
    let mut failing = false;
    loop {
        let due = engine.ledger.due();
        let wait = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closing.begun() => break,
            () = engine.ledger.wake.notified() => {}
            () = wait => {
                let outcome = engine.check_disk();
                let outcome = match outcome {
                    Ok(()) => engine.record_usage().await,
                    Err(full) => { engine.ledger.postpone(); Err(full) }
                };
                if let (Err(error), false) = (&outcome, failing) {
                    tracing::warn!(%error, "what embedding costs stays in memory until it can be recorded");
                }
                failing = outcome.is_err();
            }
        }
    }
}

/// Records everything that is not yet. It takes next to nothing, so it is tried even where the disk
/// is nearly full.
pub(crate) async fn flush(engine: &Inner) {
    while engine.ledger.due().is_some() {
        if let Err(error) = engine.record_usage().await {
            tracing::warn!(%error, "what embedding cost lately is not recorded");
            return;
        }
    }
}

impl Ledger {
    /// Tries again later.
    fn postpone(&self) {
        self.pending.lock().not_before = Some(Instant::now() + RETRY_WAIT);
    }
}

impl Inner {
    async fn record_usage(&self) -> Result<(), EngineError> {
        let (number, newest) = self.work.look(|work| {
            let spending = work.spending();
            (spending.records() + 1, spending.costs().newest())
        });
        let rows = self.ledger.begin(number);
        let today = today(Day::of(self.parts.clock.now()), newest, &rows);
        let keep_since = today.before(self.config.cost_days_kept);
        let outcome = self.work.change(WorkCommand::RecordUsage(keep_since, rows)).await;
        self.ledger.end(outcome.is_ok());
        outcome.map(|_written| ())
    }

    /// The vectors of texts by a library's model, paid for by its tenant; an error naming `field`
    /// where it has none.
    pub(crate) async fn embed_texts(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        field: &str,
        (input, texts): (InputType, Vec<String>),
    ) -> Result<Vec<f32>, EngineError> {
        self.embed_inputs(spec, field, (input, Inputs::Texts(texts)), None).await
    }

    /// As [`Inner::embed_texts`]; what it uses is told to `tally` as well.
    pub(crate) async fn embed_tallied(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        field: &str,
        (input, texts): (InputType, Vec<String>),
        tally: &Arc<Tally>,
    ) -> Result<Vec<f32>, EngineError> {
        let tally = Some(tally.clone());
        self.embed_inputs(spec, field, (input, Inputs::Texts(texts)), tally).await
    }

    /// As [`Inner::embed_texts`], of pictures.
    pub(crate) async fn embed_pictures(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        field: &str,
        (input, pictures): (InputType, Vec<Picture>),
    ) -> Result<Vec<f32>, EngineError> {
        self.embed_inputs(spec, field, (input, Inputs::Pictures(pictures)), None).await
    }

    async fn embed_inputs(
        self: &Arc<Self>,
        spec: &LibrarySpec,
        field: &str,
        (input, inputs): (InputType, Inputs),
        tally: Option<Arc<Tally>>,
    ) -> Result<Vec<f32>, EngineError> {
        let model = model_of(spec, field)?;
        let prices = &self.config.prices;
        let (count, price) = match &inputs {
            Inputs::Texts(texts) => (texts.len(), prices.pico_per_token(&model)),
            Inputs::Pictures(pictures) => (pictures.len(), prices.pico_per_picture_token(&model)),
        };
        let started = Instant::now();
        let meter = Arc::new(LibraryMeter {
            price,
            engine: self.clone(),
            tenant: spec.tenant,
            library: spec.generation_of.unwrap_or(spec.id),
            model,
            refused: Mutex::new(None),
            tally,
        });
        let metered = self.parts.embedder.metered(meter.clone());
        let deadline = self.config.embed_deadline;
        let embedded = match inputs {
            Inputs::Texts(texts) => metered.embed(&meter.model, input, texts, deadline).await,
            Inputs::Pictures(pictures) => {
                metered.embed_pictures(&meter.model, input, pictures, deadline).await
            }
        };
        match embedded {
            Ok(vectors) => {
                self.embedding_times.took(count, started.elapsed());
                Ok(vectors)
            }
            Err(error @ EmbedError::NotAllowed) => {
                let refusal = meter.refused.lock().take();
                Err(refusal.map_or(EngineError::Embedding(error), EngineError::BudgetExceeded))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The day that what is kept goes by: the clock's, but not beyond what is recorded, nor more than a
/// day beyond what was. A clock that is ahead by years must not have all that is told apart summed up.
fn today(clock: Day, newest: Option<Day>, rows: &[UsageRow]) -> Day {
    let of_rows = rows.iter().map(|row| row.key.day).max();
    let most = [of_rows, newest.map(Day::next)].into_iter().flatten();
    most.fold(clock, Day::min)
}

/// What vectors are made of.
enum Inputs {
    Texts(Vec<String>),
    Pictures(Vec<Picture>),
}

/// Counts what one request uses of a library's model.
struct LibraryMeter {
    engine: Arc<Inner>,
    tenant: TenantId,
    library: LibraryId,
    model: ModelSpec,
    /// Picodollars of a token, if they are known.
    price: Option<u64>,
    refused: Mutex<Option<Box<BudgetRefusal>>>,
    /// Whoever wants to know it beside the bill.
    tally: Option<Arc<Tally>>,
}

/// What one piece of work has used so far: of what it asked for, also where nothing came of it.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Used>);

impl Tally {
    /// The sum.
    pub fn used(&self) -> Used {
        *self.0.lock()
    }
}

impl fmt::Debug for LibraryMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibraryMeter").field("library", &self.library).finish_non_exhaustive()
    }
}

impl Inner {
    /// Counts what was used of a library.
    pub(crate) fn pay(
        &self,
        (tenant, library): (TenantId, LibraryId),
        (provider, model): (&str, &str),
        used: &Used,
    ) {
        let key = UsageKey {
            day: Day::of(self.parts.clock.now()),
            tenant,
            library: Some(library),
            provider: provider.into(),
            model: model.into(),
        };
        self.ledger.add(key, used);
    }

    /// Why nothing may be paid for of a library, if that is so; such a refusal counts.
    pub(crate) fn refuses_to_pay(
        &self,
        tenant: TenantId,
        library: LibraryId,
    ) -> Option<Box<BudgetRefusal>> {
        let refusal = self.refusal(tenant, library)?;
        self.ledger.refusals.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(refusal))
    }
}

impl Meter for LibraryMeter {
    fn used(&self, usage: Usage) {
        let Usage { texts, tokens, cached_texts, cached_tokens } = usage;
        let price = |tokens: u64| Money::from_pico(tokens.saturating_mul(self.price.unwrap_or(0)));
        let used = Used {
            texts,
            tokens,
            cost: price(tokens),
            unpriced_tokens: if self.price.is_none() { tokens } else { 0 },
            cached_texts,
            cached_tokens,
            saved: price(cached_tokens),
        };
        if let Some(tally) = &self.tally {
            tally.0.lock().add(&used);
        }
        let with = (self.model.provider.name(), self.model.model.as_str());
        self.engine.pay((self.tenant, self.library), with, &used);
    }

    fn may_call(&self) -> bool {
        if self.price.unwrap_or(0) == 0 {
            return true;
        }
        let refusal = self.engine.refuses_to_pay(self.tenant, self.library);
        let may = refusal.is_none();
        *self.refused.lock() = refusal;
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(library: u32, day: i64) -> UsageKey {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&library.to_be_bytes());
        UsageKey {
            day: Day::new(day),
            tenant: TenantId::DEFAULT,
            library: Some(LibraryId::from_bytes(bytes)),
            provider: "openai".into(),
            model: "a".into(),
        }
    }

    fn cost(pico: u64) -> Used {
        Used { texts: 1, cost: Money::from_pico(pico), ..Used::default() }
    }

    fn sum(ledger: &Ledger, records: u64) -> u64 {
        ledger.with_unpublished(|| (records, 0), |sum, _key, used| *sum += used.cost.pico())
    }

    #[test]
    fn what_is_on_its_way_is_counted_until_it_is_published_and_not_twice() {
        let ledger = Ledger::default();
        ledger.add(key(1, 1), &cost(5));
        assert_eq!(ledger.begin(8).len(), 1);
        ledger.add(key(1, 1), &cost(2));
        assert_eq!((sum(&ledger, 7), sum(&ledger, 8)), (7, 2));
        ledger.end(true);
        assert_eq!((sum(&ledger, 7), sum(&ledger, 8)), (2, 2));
        assert_eq!(ledger.begin(9).len(), 1);
        ledger.end(false);
        assert_eq!(sum(&ledger, 8), 2, "it is kept");
        let figures = ledger.figures();
        assert_eq!(figures.models[0].used.cost, Money::from_pico(7));
        assert_eq!((figures.models.len(), figures.unrecorded), (1, 1));
    }

    #[test]
    fn what_was_paid_for_is_recorded_sooner_than_what_was_free() {
        let ledger = Ledger::default();
        assert_eq!(ledger.due(), None);
        ledger.add(key(1, 1), &cost(0));
        let free = ledger.due().unwrap();
        assert!(free > Instant::now() + FREE_WAIT / 2);
        ledger.add(key(1, 1), &cost(1));
        assert!(ledger.due().unwrap() <= Instant::now() + PAID_WAIT);
        ledger.begin(1);
        assert_eq!(ledger.due(), None);
    }

    #[test]
    fn a_clock_that_is_ahead_has_nothing_forgotten() {
        let rows = |day| [UsageRow { key: key(1, day), used: cost(1) }];
        let day = |clock, newest: Option<i64>, of_row| {
            today(Day::new(clock), newest.map(Day::new), &rows(of_row)).number()
        };
        assert_eq!(day(10, None, 10), 10);
        assert_eq!(day(10, Some(9), 10), 10);
        assert_eq!(day(5000, Some(9), 5000), 10);
        assert_eq!(day(5000, Some(5000), 10), 10);
        assert_eq!(day(10, Some(5000), 10), 10);
    }

    #[test]
    fn a_record_is_of_one_day() {
        let ledger = Ledger::default();
        for (library, day) in [(1, 2), (1, 1), (2, 1), (2, 3)] {
            ledger.add(key(library, day), &cost(1));
        }
        let mut found: Vec<Vec<i64>> = Vec::new();
        while ledger.due().is_some() {
            let rows = ledger.begin(1);
            found.push(rows.iter().map(|row| row.key.day.number()).collect());
            ledger.end(true);
        }
        assert_eq!(found, [vec![1, 1], vec![2], vec![3]]);
    }

    #[test]
    fn what_cannot_be_recorded_is_not_tried_without_a_pause() {
        let ledger = Ledger::default();
        let soon = || ledger.due().unwrap() < Instant::now() + RETRY_WAIT / 2;
        for n in 0..u32::try_from(ROWS_FULL).unwrap() {
            ledger.add(key(n, 1), &cost(1));
        }
        assert!(soon());
        ledger.postpone();
        assert!(!soon(), "the disk is full");
        ledger.begin(1);
        ledger.end(false);
        assert!(!soon(), "it was not written");
        ledger.add(key(0, 2), &cost(1));
        assert!(!soon(), "nor is it for what comes next");
        ledger.begin(2);
        ledger.end(true);
        ledger.pending.lock().paid = None;
        for n in 0..u32::try_from(ROWS_FULL).unwrap() {
            ledger.add(key(n, 2), &cost(0));
        }
        assert!(soon(), "it can be written again");
    }

    #[test]
    fn counts_are_bounded_and_their_sum_is_exact() {
        let ledger = Ledger::default();
        let count = u32::try_from(ROWS_SUMMED_MAX).unwrap();
        for n in 0..3 * count {
            ledger.add(key(n, i64::from(n)), &cost(1));
        }
        assert!(ledger.due().unwrap() <= Instant::now(), "it is recorded at once");
        let rows = ledger.pending.lock().rows.len();
        assert_eq!(rows, ROWS_OF_DAYS_MAX + 1, "of very many days they are not told apart");
        assert_eq!(sum(&ledger, 0), u64::from(3 * count));
        let rows = ledger.begin(1);
        assert!(rows.len() <= USAGE_ROWS_PER_RECORD_MAX);
        let ledger = Ledger::default();
        for n in 0..3 * count {
            let key = UsageKey { model: n.to_string().into(), ..key(n, i64::from(n % 2)) };
            ledger.add(key, &cost(1));
        }
        let pending = ledger.pending.lock();
        assert_eq!(pending.rows.len(), ROWS_SUMMED_MAX + 2);
        assert!(pending.rows.keys().all(|key| key.day != Day::OLDER), "days are told apart");
    }
}
