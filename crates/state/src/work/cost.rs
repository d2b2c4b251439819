//! What embedding cost, by day, tenant, library, provider and model.
//!
//! Money is counted in picodollars (millionths of a millionth of a US dollar), the unit in which a
//! single token of a price of six decimals, in dollars for a million tokens, loses nothing. Sums stop
//! at the largest that fits, 18 million dollars, rather than begin anew.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::budget::{BudgetPeriod, BudgetScope};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{LibraryId, TenantId, Timestamp};
use crate::limits::{COST_ROWS_MAX, USAGE_ROWS_PER_RECORD_MAX};

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Picodollars of a micro-dollar, and micro-dollars of a dollar.
const MILLION: u64 = 1_000_000;

/// An amount of money, in picodollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// None.
    pub const ZERO: Self = Self(0);

    /// So many picodollars.
    pub const fn from_pico(pico: u64) -> Self {
        Self(pico)
    }

    /// So many millionths of a dollar.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(MILLION))
    }

    /// Picodollars.
    pub const fn pico(self) -> u64 {
        self.0
    }

    /// Dollars, as a number to be shown.
    #[expect(clippy::cast_precision_loss, reason = "shown with fewer digits than a double has")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / (MILLION * MILLION) as f64
    }

    /// The sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left of it after `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// A day in UTC: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// Before all others: what is kept of days that are not told apart any longer.
    pub const OLDER: Self = Self(i64::MIN);

    /// The first day after so many.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Days since 1970-01-01.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The day of a moment.
    pub const fn of(at: Timestamp) -> Self {
        Self(at.micros().div_euclid(MICROS_PER_DAY))
    }

    /// When it begins.
    pub const fn start(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_mul(MICROS_PER_DAY))
    }

    /// So many days before.
    #[must_use]
    pub const fn before(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days as i64))
    }

    /// The day after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The first day of its month.
    #[must_use]
    pub const fn month(self) -> Self {
        let (_year, _month, day) = self.date();
        Self(self.0.saturating_sub(day - 1))
    }

    /// The first day of the month after its own.
    #[must_use]
    pub const fn next_month(self) -> Self {
        // From the first of a month, 31 days lead into the next one.
        Self(self.month().0.saturating_add(31)).month()
    }

    /// Year, month from 1 and day from 1 of the Gregorian calendar. Years are counted from March,
    /// in eras of 400 years, so that leap days end a year.
    const fn date(self) -> (i64, i64, i64) {
        // Days that no time of the log has would overflow.
        let number = if self.0 < -200_000_000 {
            -200_000_000
        } else if self.0 > 200_000_000 {
            200_000_000
        } else {
            self.0
        };
        let since = number + 719_468;
        let (era, of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march + 2) / 5 + 1;
        let (month, next) = if march < 10 { (march + 3, 0) } else { (march - 9, 1) };
        (year + era * 400 + next, month, day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// What is counted apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsageKey {
    /// The day in UTC; [`Day::OLDER`] for days that are not told apart any longer.
    pub day: Day,
    /// Who pays.
    pub tenant: TenantId,
    /// The library; none where libraries are not told apart any longer.
    pub library: Option<LibraryId>,
    /// Who embedded; blank where that is not told apart any longer.
    pub provider: Arc<str>,
    /// With what; blank where that is not told apart any longer.
    pub model: Arc<str>,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Texts that the provider embedded.
    pub texts: u64,
    /// Their tokens, as the provider counted them.
    pub tokens: u64,
    /// What that cost.
    pub cost: Money,
    /// Tokens of these whose price is not known: they count as free.
    pub unpriced_tokens: u64,
    /// Texts whose vectors were known.
    pub cached_texts: u64,
    /// Their tokens, by estimate.
    pub cached_tokens: u64,
    /// What embedding those would have cost.
    pub saved: Money,
}

impl Used {
    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        let Self { texts, tokens, cost, unpriced_tokens, cached_texts, cached_tokens, saved } =
            self;
        *texts = texts.saturating_add(more.texts);
        *tokens = tokens.saturating_add(more.tokens);
        *cost = cost.plus(more.cost);
        *unpriced_tokens = unpriced_tokens.saturating_add(more.unpriced_tokens);
        *cached_texts = cached_texts.saturating_add(more.cached_texts);
        *cached_tokens = cached_tokens.saturating_add(more.cached_tokens);
        *saved = saved.plus(more.saved);
    }

    fn write(&self, out: &mut Writer) {
        let Self { texts, tokens, cost, unpriced_tokens, cached_texts, cached_tokens, saved } =
            *self;
        for number in [texts, tokens, cost.0, unpriced_tokens, cached_texts, cached_tokens, saved.0]
        {
            out.u64(number);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            texts: from.u64("texts")?,
            tokens: from.u64("tokens")?,
            cost: Money(from.u64("cost")?),
            unpriced_tokens: from.u64("tokens without a price")?,
            cached_texts: from.u64("texts from the cache")?,
            cached_tokens: from.u64("tokens from the cache")?,
            saved: Money(from.u64("cost saved")?),
        })
    }
}

/// What was used of one thing that is counted apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// Of what.
    pub key: UsageKey,
    /// What.
    pub used: Used,
}

/// The least bytes of a row.
const ROW_BYTES_MIN: usize = 8 + 8 + 1 + 4 + 4 + 7 * 8;

pub(super) fn write_row(out: &mut Writer, key: &UsageKey, used: &Used) {
    out.i64(key.day.0);
    out.u64(key.tenant.number());
    write_library(out, key.library);
    out.text(&key.provider);
    out.text(&key.model);
    used.write(out);
}

fn read_row(from: &mut Reader<'_>) -> Result<UsageRow, DecodeError> {
    let key = UsageKey {
        day: Day(from.i64("day")?),
        tenant: TenantId::new(from.u64("tenant")?),
        library: read_library(from)?,
        provider: from.text("provider")?.into(),
        model: from.text("model")?.into(),
    };
    Ok(UsageRow { key, used: Used::read(from)? })
}

pub(super) fn write_rows(out: &mut Writer, rows: &[UsageRow]) {
    assert!(rows.len() <= USAGE_ROWS_PER_RECORD_MAX, "what is recorded at once is bounded");
    out.count(rows.len());
    for UsageRow { key, used } in rows {
        write_row(out, key, used);
    }
}

pub(super) fn read_rows(from: &mut Reader<'_>) -> Result<Vec<UsageRow>, DecodeError> {
    let count = from.count(ROW_BYTES_MIN, "rows of usage")?;
    if count > USAGE_ROWS_PER_RECORD_MAX {
        return Err(from.error("as many rows of usage as one record has"));
    }
    (0..count).map(|_row| read_row(from)).collect()
}

pub(super) fn write_library(out: &mut Writer, library: Option<LibraryId>) {
    out.u8(u8::from(library.is_some()));
    if let Some(library) = library {
        out.id(library.to_bytes());
    }
}

pub(super) fn read_library(from: &mut Reader<'_>) -> Result<Option<LibraryId>, DecodeError> {
    let of_one = from.flag("library")?;
    Ok(if of_one { Some(LibraryId::new(from.uuid("library id")?)) } else { None })
}

/// Everything that was used, as a snapshot that does not change. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Costs(Arc<BTreeMap<UsageKey, Used>>);

impl Costs {
    /// Every row, the oldest day first.
    pub fn rows(&self) -> impl Iterator<Item = (&UsageKey, &Used)> {
        self.0.iter()
    }

    /// The newest day that something was used on.
    pub fn newest(&self) -> Option<Day> {
        self.0.keys().next_back().map(|key| key.day).filter(|day| *day != Day::OLDER)
    }

    /// What was spent in the period that begins with a day, by whom a budget is of.
    pub(super) fn spent(&self, scope: BudgetScope, period: BudgetPeriod, since: Day) -> Money {
        let BudgetScope { tenant, library } = scope;
        // Not what a clock that was ahead has counted on days to come.
        let counts = |key: &UsageKey| {
            key.tenant == tenant
                && period.start(key.day) == since
                && library.is_none_or(|library| key.library == Some(library))
        };
        let counted = self.0.range(least(since)..).filter(|(key, _used)| counts(key));
        counted.fold(Money::ZERO, |sum, (_key, used)| sum.plus(used.cost))
    }

    /// Adds rows, and gives up what tells days before `keep_since` apart. Nothing that was counted
    /// is lost from the sums.
    pub(super) fn add(&mut self, rows: &[UsageRow], keep_since: Day) {
        let all = Arc::make_mut(&mut self.0);
        for UsageRow { key, used } in rows {
            match all.get_mut(key) {
                Some(sum) => sum.add(used),
                None => drop(all.insert(key.clone(), *used)),
            }
        }
        while let Some(day) = oldest(all).filter(|day| *day < keep_since) {
            fold(all, day, Fold::Everything);
        }
        shrink(all, COST_ROWS_MAX);
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.count(self.0.len());
        self.0.iter().for_each(|(key, used)| write_row(out, key, used));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let rows = (0..from.count(ROW_BYTES_MIN, "rows of usage")?).map(|_row| read_row(from));
        let rows = rows.map(|row| row.map(|row| (row.key, row.used)));
        Ok(Self(Arc::new(rows.collect::<Result<_, _>>()?)))
    }
}

/// What is not told apart any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fold {
    /// A day's libraries.
    Libraries,
    /// A day from those before, and all of it but whose it is.
    Everything,
}

/// The oldest day that is told apart.
fn oldest(rows: &BTreeMap<UsageKey, Used>) -> Option<Day> {
    rows.keys().map(|key| key.day).find(|day| *day != Day::OLDER)
}

/// Has there be at most `max` rows: gives up what tells the libraries of the oldest days apart, of
/// no more days than it must, then those of the newest day, and only then the oldest days: what one
/// day has too much of is no reason to forget the others.
fn shrink(rows: &mut BTreeMap<UsageKey, Used>, max: usize) {
    if rows.len() <= max {
        return;
    }
    let mut days: Vec<_> = rows.keys().map(|key| key.day).collect();
    days.dedup();
    days.retain(|day| *day != Day::OLDER);
    for how in [Fold::Libraries, Fold::Everything] {
        for day in &days {
            if rows.len() <= max {
                return;
            }
            fold(rows, *day, how);
        }
    }
}

fn fold(rows: &mut BTreeMap<UsageKey, Used>, day: Day, how: Fold) {
    let after =
        day.0.checked_add(1).map_or(Bound::Unbounded, |day| Bound::Excluded(least(Day(day))));
    let of_day = (Bound::Included(least(day)), after);
    let folded: Vec<_> = rows.extract_if(of_day, |_key, _used| true).collect();
    for (key, used) in folded {
        let key = match how {
            Fold::Libraries => UsageKey { library: None, ..key },
            Fold::Everything => UsageKey {
                day: Day::OLDER,
                library: None,
                provider: "".into(),
                model: "".into(),
                ..key
            },
        };
        rows.entry(key).or_default().add(&used);
    }
}

/// What is before all rows of a day.
fn least(day: Day) -> UsageKey {
    let (provider, model) = ("".into(), "".into());
    UsageKey { day, tenant: TenantId::new(0), library: None, provider, model }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(day: i64, library: u8, model: &str, cost: u64) -> UsageRow {
        let key = UsageKey {
            day: Day(day),
            tenant: TenantId::DEFAULT,
            library: Some(LibraryId::from_bytes([library; 16])),
            provider: "openai".into(),
            model: model.into(),
        };
        UsageRow { key, used: Used { texts: 1, cost: Money(cost), ..Used::default() } }
    }

    fn sum(rows: &BTreeMap<UsageKey, Used>) -> u64 {
        rows.values().map(|used| used.cost.0).sum()
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (number, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
            (20_779, "2026-11-22"),
        ] {
            assert_eq!(Day(number).to_string(), text);
        }
        let mut day = Day(-200_000);
        let mut months = 0;
        while day < Day(200_000) {
            let next = day.next_month();
            let (year, month, _day) = day.date();
            let (then, following, first) = next.date();
            let expected = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
            assert_eq!((then, following, first), expected);
            assert_eq!(next.before(1).month(), day.month());
            (day, months) = (next, months + 1);
        }
        assert!(months > 13_000);
        for extreme in [i64::MIN, i64::MAX] {
            assert!(!Day(extreme).to_string().is_empty());
            assert_ne!(Day(extreme).start().micros(), 0);
            assert!(Day(extreme).month() <= Day(extreme));
            assert!(Day(extreme).next_month() >= Day(extreme).month());
        }
        assert_eq!(Day::of(Timestamp::from_micros(-1)), Day(-1));
        assert_eq!(Day::of(Day(20_779).start()), Day(20_779));
    }

    #[test]
    fn a_token_of_the_least_price_is_not_lost() {
        assert_eq!(Money::from_micros(1).pico(), 1_000_000);
        assert_eq!(Money::from_micros(2_500_000).dollars().to_string(), "2.5");
        assert_eq!(Money(u64::MAX).plus(Money(1)), Money(u64::MAX));
    }

    #[test]
    fn what_is_folded_together_is_still_counted() {
        let mut rows = BTreeMap::new();
        for day in 0..10 {
            for library in 0..4 {
                let UsageRow { key, used } = row(day, library, "a", 10);
                rows.insert(key, used);
            }
        }
        shrink(&mut rows, 40);
        assert_eq!(rows.len(), 40);
        shrink(&mut rows, 30);
        assert_eq!((rows.len(), sum(&rows)), (28, 400), "four days without their libraries");
        assert_eq!(rows.keys().filter(|key| key.library.is_none()).count(), 4);
        shrink(&mut rows, 13);
        assert_eq!((rows.len(), sum(&rows)), (13, 400), "all but today");
        shrink(&mut rows, 6);
        assert_eq!(sum(&rows), 400);
        assert!(rows.len() <= 6, "{}", rows.len());
        assert_eq!(oldest(&rows), Some(Day(5)), "days go only as far as they must");
        shrink(&mut rows, 1);
        assert_eq!((rows.len(), oldest(&rows), sum(&rows)), (1, None, 400));
    }

    #[test]
    fn a_day_of_too_many_libraries_leaves_the_days_before_it_alone() {
        let mut rows = BTreeMap::new();
        let all = (0..10).map(|day| row(day, 0, "a", 10));
        for UsageRow { key, used } in all.chain((1..100).map(|library| row(9, library, "a", 1))) {
            rows.insert(key, used);
        }
        shrink(&mut rows, 20);
        let days = |rows: &BTreeMap<_, _>| -> Vec<_> {
            rows.keys().map(|key: &UsageKey| key.day.0).collect()
        };
        assert_eq!((days(&rows), sum(&rows)), ((0..10).collect(), 199), "only libraries went");
        // The last day there can be has none after it.
        for UsageRow { key, used } in [row(i64::MAX, 1, "a", 1), row(i64::MAX, 2, "a", 1)] {
            rows.insert(key, used);
        }
        shrink(&mut rows, 11);
        assert_eq!((rows.len(), rows.keys().any(|key| key.day == Day::OLDER)), (11, false));
        shrink(&mut rows, 2);
        assert_eq!((days(&rows), sum(&rows)), (vec![i64::MIN, i64::MAX], 201));
    }

    #[test]
    fn days_that_are_not_kept_are_summed() {
        let mut costs = Costs::default();
        costs.add(&[row(1, 1, "a", 5), row(2, 1, "a", 6), row(3, 1, "b", 7)], Day(0));
        assert_eq!(costs.rows().count(), 3);
        costs.add(&[row(3, 1, "b", 1)], Day(3));
        let left: Vec<_> = costs.rows().map(|(key, used)| (key.day, used.cost.0)).collect();
        assert_eq!(left, [(Day::OLDER, 11), (Day(3), 8)]);
        assert_eq!(costs.newest(), Some(Day(3)));
        let spent = |library, period, since| {
            costs.spent(BudgetScope { tenant: TenantId::DEFAULT, library }, period, since)
        };
        assert_eq!(spent(None, BudgetPeriod::Total, Day::OLDER), Money(19));
        let library = Some(LibraryId::from_bytes([1; 16]));
        assert_eq!(spent(library, BudgetPeriod::Total, Day::OLDER), Money(8));
        assert_eq!(spent(None, BudgetPeriod::Month, Day(0)), Money(8));
        assert_eq!(spent(None, BudgetPeriod::Day, Day(2)), Money::ZERO);
    }
}
