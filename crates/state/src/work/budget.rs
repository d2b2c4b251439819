//! Budgets: how much a tenant, or one of its libraries, means to spend on embedding.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{LibraryId, TenantId, Timestamp};
use crate::limits::BUDGET_THRESHOLDS_MAX;

use super::cost::{Costs, Day, Money, read_library, write_library};

/// What a budget is of: a tenant, or one of its libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetScope {
    /// The tenant.
    pub tenant: TenantId,
    /// The library; all of the tenant's, if none.
    pub library: Option<LibraryId>,
}

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum BudgetPeriod {
    /// A day in UTC.
    Day,
    /// A month in UTC.
    #[default]
    Month,
    /// All time.
    Total,
}

impl BudgetPeriod {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Total];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// The period of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.name() == name)
    }

    /// The first day of the one that a day is in.
    pub const fn start(self, day: Day) -> Day {
        match self {
            Self::Day => day,
            Self::Month => day.month(),
            Self::Total => Day::OLDER,
        }
    }

    /// When the one that begins with a day is over; that of all time never is.
    pub const fn end(self, start: Day) -> Option<Timestamp> {
        match self {
            Self::Day => Some(start.next().start()),
            Self::Month => Some(start.next_month().start()),
            Self::Total => None,
        }
    }
}

/// A budget as it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetTerms {
    /// Whose.
    pub scope: BudgetScope,
    /// How much.
    pub amount: Money,
    /// For what time.
    pub period: BudgetPeriod,
    /// Percentages at which somebody is told: ascending, 1 to 100.
    pub thresholds: Vec<u8>,
    /// Whether nothing more is paid for when it is spent.
    pub refuse: bool,
}

/// A budget, and how much of it is spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// As it was set.
    pub terms: BudgetTerms,
    /// When it was set.
    pub set_at: Timestamp,
    /// The first day of the period that is counted.
    pub since: Day,
    /// Spent in that period.
    pub spent: Money,
    /// Percentages that were told in that period.
    told: Vec<u8>,
    /// Whether it was told in that period that all is spent.
    exceeded: bool,
}

/// Spending reached percentages of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetCrossed {
    /// When that was found.
    pub at: Timestamp,
    /// The budget as it is.
    pub terms: BudgetTerms,
    /// The first day of the period.
    pub since: Day,
    /// Spent in the period.
    pub spent: Money,
    /// The percentages: ascending, 1 to 100.
    pub percents: Vec<u8>,
    /// Whether all of it is spent, for the first time in the period.
    pub exceeded: bool,
}

impl BudgetTerms {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.scope.tenant.number());
        write_library(out, self.scope.library);
        out.u64(self.amount.pico());
        out.u8(match self.period {
            BudgetPeriod::Day => 0,
            BudgetPeriod::Month => 1,
            BudgetPeriod::Total => 2,
        });
        write_percents(out, &self.thresholds);
        out.u8(u8::from(self.refuse));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            scope: BudgetScope {
                tenant: TenantId::new(from.u64("tenant")?),
                library: read_library(from)?,
            },
            amount: Money::from_pico(from.u64("amount")?),
            period: match from.u8("period")? {
                0 => BudgetPeriod::Day,
                1 => BudgetPeriod::Month,
                2 => BudgetPeriod::Total,
                _ => return Err(from.error("a period this build knows")),
            },
            thresholds: read_percents(from)?,
            refuse: from.flag("refusal")?,
        })
    }

    /// Whether `spent` is at least so many percent of the amount.
    fn is_reached(&self, percent: u8, spent: Money) -> bool {
        u128::from(spent.pico()) * 100 >= u128::from(self.amount.pico()) * u128::from(percent)
    }
}

impl Budget {
    /// A budget of which so much was spent since the first day of its period.
    pub(super) fn new(terms: BudgetTerms, set_at: Timestamp, (since, spent): (Day, Money)) -> Self {
        Self { terms, set_at, since, spent, told: Vec::new(), exceeded: false }
    }

    /// Takes over what was told by the one before it in the same period: percentages that are
    /// still reached are not told again, others are when they are.
    pub(super) fn succeed(&mut self, before: &Self) {
        if before.terms.period == self.terms.period && before.since == self.since {
            // It may know of what is not told apart any longer.
            self.spent = before.spent;
            let still = |percent: &&u8| self.terms.is_reached(**percent, self.spent);
            self.told = before.told.iter().filter(still).copied().collect();
            self.exceeded = before.exceeded && self.terms.is_reached(100, self.spent);
        }
    }

    /// Begins a period of which so much is spent: nothing of it was told.
    pub(super) fn begin(&mut self, since: Day, spent: Money) {
        (self.since, self.spent) = (since, spent);
        self.told.clear();
        self.exceeded = false;
    }

    /// Counts what was spent on a day; of a period that is over, nothing. One that begins goes on
    /// from what `costs` has of it, which is nothing unless a clock was ahead.
    pub(super) fn count(&mut self, day: Day, cost: Money, costs: &Costs) {
        let BudgetTerms { scope, period, .. } = self.terms;
        let start = period.start(day);
        if start > self.since {
            let known = costs.newest().is_some_and(|newest| period.start(newest) >= start);
            let before = if known { costs.spent(scope, period, start) } else { Money::ZERO };
            self.begin(start, before);
        }
        if start == self.since {
            self.spent = self.spent.plus(cost);
        }
    }

    /// The first day of the period of this moment where a later one is counted: the clock was ahead
    /// once, and what is spent now would count nowhere until then.
    pub(super) fn ahead(&self, at: Timestamp) -> Option<Day> {
        let start = self.terms.period.start(Day::of(at));
        (start < self.since).then_some(start)
    }

    /// What was spent in the period of this moment, and its first day; unless it is [ahead].
    ///
    /// [ahead]: Self::ahead
    pub(super) fn spent_at(&self, at: Timestamp) -> (Day, Money) {
        let start = self.terms.period.start(Day::of(at));
        (start.max(self.since), if start > self.since { Money::ZERO } else { self.spent })
    }

    /// What is to be told and was not.
    pub(super) fn due(&self, at: Timestamp) -> Option<BudgetCrossed> {
        let is_new = |percent: &&u8| {
            !self.told.contains(percent) && self.terms.is_reached(**percent, self.spent)
        };
        let percents: Vec<u8> = self.terms.thresholds.iter().filter(is_new).copied().collect();
        let exceeded = !self.exceeded && self.terms.is_reached(100, self.spent);
        (exceeded || !percents.is_empty()).then(|| BudgetCrossed {
            at,
            terms: self.terms.clone(),
            since: self.since,
            spent: self.spent,
            percents,
            exceeded,
        })
    }

    /// Remembers what was told.
    pub(super) fn note(&mut self, crossed: &BudgetCrossed) {
        if crossed.since == self.since {
            self.told.extend(&crossed.percents);
            self.told.sort_unstable();
            self.told.dedup();
            self.exceeded |= crossed.exceeded;
        }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        self.terms.write(out);
        out.i64(self.set_at.micros());
        out.i64(self.since.number());
        out.u64(self.spent.pico());
        write_percents(out, &self.told);
        out.u8(u8::from(self.exceeded));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            terms: BudgetTerms::read(from)?,
            set_at: Timestamp::from_micros(from.i64("time")?),
            since: Day::new(from.i64("day")?),
            spent: Money::from_pico(from.u64("spent")?),
            told: read_percents(from)?,
            exceeded: from.flag("whether all is spent")?,
        })
    }
}

impl BudgetCrossed {
    pub(super) fn write(&self, out: &mut Writer) {
        self.terms.write(out);
        out.i64(self.since.number());
        out.u64(self.spent.pico());
        write_percents(out, &self.percents);
        out.u8(u8::from(self.exceeded));
    }

    pub(super) fn read(at: Timestamp, from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            at,
            terms: BudgetTerms::read(from)?,
            since: Day::new(from.i64("day")?),
            spent: Money::from_pico(from.u64("spent")?),
            percents: read_percents(from)?,
            exceeded: from.flag("whether all is spent")?,
        })
    }
}

fn write_percents(out: &mut Writer, percents: &[u8]) {
    out.count(percents.len());
    out.raw(percents);
}

fn read_percents(from: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let count = from.count(1, "percentages")?;
    let percents = from.raw(count, "percentages")?;
    let ascends = percents.is_sorted_by(|a, b| a < b);
    if !ascends || percents.iter().any(|percent| !(1..=100).contains(percent)) {
        return Err(from.error("percentages from 1 to 100 that ascend"));
    }
    Ok(percents.to_vec())
}

impl BudgetTerms {
    /// What is wrong with its thresholds, if anything is.
    pub fn threshold_fault(thresholds: &[u8]) -> Option<String> {
        let count = thresholds.len();
        let outside = thresholds.iter().find(|percent| !(1..=100).contains(*percent));
        let twice = || {
            let mut sorted = thresholds.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        };
        if count > BUDGET_THRESHOLDS_MAX {
            return Some(format!(
                "must be at most {BUDGET_THRESHOLDS_MAX} percentages, not {count}"
            ));
        }
        if let Some(percent) = outside {
            return Some(format!("must be percentages from 1 to 100, not {percent}"));
        }
        twice().map(|percent| format!("has {percent} twice"))
    }
}
