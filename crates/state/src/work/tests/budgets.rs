//! Somebody is told of a budget once for each percentage and period, whatever is set meanwhile.

use super::*;

const LIBRARY: LibraryId = LibraryId::from_bytes([7; 16]);
/// 2026-11-22.
const TODAY: i64 = 20_779;

fn day(number: i64) -> Timestamp {
    Day::new(number).start()
}

pub(super) fn terms(library: Option<LibraryId>, amount: u64, period: BudgetPeriod) -> BudgetTerms {
    BudgetTerms {
        scope: BudgetScope { tenant: TenantId::DEFAULT, library },
        amount: Money::from_pico(amount),
        period,
        thresholds: vec![50, 80, 100],
        refuse: false,
    }
}

pub(super) fn row(day: i64, library: Option<LibraryId>, cost: u64) -> UsageRow {
    UsageRow {
        key: UsageKey {
            day: Day::new(day),
            tenant: TenantId::DEFAULT,
            library,
            provider: "openai".into(),
            model: "a model".into(),
        },
        used: Used { texts: 1, cost: Money::from_pico(cost), ..Used::default() },
    }
}

/// Work, and the number of its last record.
#[derive(Default)]
struct Told(Work, u64);

impl Told {
    fn on(&mut self, at: Timestamp, command: WorkCommand) -> Result<WorkEntry, WorkRejection> {
        let entry = self.0.decide(command, at)?;
        self.1 += 1;
        self.0.apply(Seq::new(self.1), &entry);
        Ok(entry)
    }

    fn set(&mut self, at: i64, terms: BudgetTerms) {
        self.on(day(at), WorkCommand::SetBudget(terms)).unwrap();
    }

    fn spend(&mut self, at: i64, library: Option<LibraryId>, cost: u64) {
        let rows = vec![row(at, library, cost)];
        self.on(day(at), WorkCommand::RecordUsage(Day::new(0), rows)).unwrap();
    }

    /// Everything that is to be told, and told so that it is not told again.
    fn tell(&mut self, at: i64) -> Vec<(Option<LibraryId>, Vec<u8>, bool)> {
        let mut told = Vec::new();
        while let Ok(WorkEntry::BudgetCrossed(crossed)) = self.on(day(at), WorkCommand::TellBudget)
        {
            told.push((crossed.terms.scope.library, crossed.percents, crossed.exceeded));
        }
        told
    }
}

#[test]
fn every_percentage_is_told_once_in_a_period() {
    let mut work = Told::default();
    work.set(TODAY, terms(None, 100, BudgetPeriod::Month));
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, Some(LIBRARY), 49);
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, None, 1);
    assert_eq!(work.tell(TODAY), [(None, vec![50], false)]);
    work.spend(TODAY, Some(LIBRARY), 1);
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, Some(LIBRARY), 60);
    assert_eq!(work.tell(TODAY), [(None, vec![80, 100], true)]);
    work.spend(TODAY, Some(LIBRARY), 60);
    assert_eq!(work.tell(TODAY), []);
    let spent_at = |work: &Told, at| {
        let budget = work.0.spending().budgets(TenantId::DEFAULT).next().unwrap();
        let (since, spent) = work.0.spending().spent_at(budget, day(at));
        (since.to_string(), spent.pico())
    };
    assert_eq!(spent_at(&work, TODAY + 8), ("2026-11-01".to_owned(), 171));
    assert_eq!(spent_at(&work, TODAY + 9), ("2026-12-01".to_owned(), 0));
    work.spend(TODAY + 9, Some(LIBRARY), 40);
    assert_eq!(work.tell(TODAY + 9), []);
    work.spend(TODAY + 10, Some(LIBRARY), 10);
    assert_eq!(work.tell(TODAY + 10), [(None, vec![50], false)]);
    // What comes late of a month that is over is no part of this one.
    let late = vec![row(TODAY, Some(LIBRARY), 1000)];
    work.on(day(TODAY + 10), WorkCommand::RecordUsage(Day::new(0), late)).unwrap();
    assert_eq!(work.tell(TODAY + 10), []);
    assert_eq!(spent_at(&work, TODAY + 10), ("2026-12-01".to_owned(), 50));
}

#[test]
fn a_library_and_its_tenant_are_paid_for_apart() {
    let mut work = Told::default();
    work.set(TODAY, terms(None, 1000, BudgetPeriod::Day));
    work.set(TODAY, terms(Some(LIBRARY), 100, BudgetPeriod::Total));
    work.spend(TODAY, None, 100);
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, Some(LIBRARY), 80);
    assert_eq!(work.tell(TODAY), [(Some(LIBRARY), vec![50, 80], false)]);
    work.spend(TODAY, Some(LIBRARY), 400);
    let told = work.tell(TODAY);
    assert_eq!(told, [(None, vec![50], false), (Some(LIBRARY), vec![100], true)]);
    // That of the day begins anew, that of all time never does.
    work.spend(TODAY + 1, Some(LIBRARY), 500);
    assert_eq!(work.tell(TODAY + 1), [(None, vec![50], false)]);
    let paid_from: Vec<_> = work.0.spending().budgets_for(TenantId::DEFAULT, LIBRARY).collect();
    let spent_at = |budget: &&Arc<Budget>| work.0.spending().spent_at(budget, day(TODAY + 1));
    let spent: Vec<_> = paid_from.iter().map(spent_at).collect();
    let expected = [(Day::new(TODAY + 1), 500), (Day::OLDER, 980)];
    assert_eq!(spent, expected.map(|(day, pico)| (day, Money::from_pico(pico))));
}

#[test]
fn a_budget_that_is_changed_midway_counts_what_was_spent() {
    let mut work = Told::default();
    work.spend(TODAY - 30, None, 5000);
    work.spend(TODAY - 1, None, 30);
    work.spend(TODAY, None, 60);
    work.set(TODAY, terms(None, 100, BudgetPeriod::Month));
    assert_eq!(work.tell(TODAY), [(None, vec![50, 80], false)], "what was spent before counts");
    work.set(TODAY, terms(None, 100, BudgetPeriod::Month));
    assert_eq!(work.tell(TODAY), [], "nothing is told twice");
    work.set(TODAY, terms(None, 120, BudgetPeriod::Month));
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, None, 30);
    assert_eq!(work.tell(TODAY), [(None, vec![80, 100], true)], "80 was not reached any more");
    work.set(TODAY, terms(None, 1000, BudgetPeriod::Month));
    work.set(TODAY, terms(None, 120, BudgetPeriod::Month));
    assert_eq!(work.tell(TODAY), [(None, vec![50, 80, 100], true)], "it was raised in between");
    let other = BudgetTerms { thresholds: vec![10], ..terms(None, 120, BudgetPeriod::Month) };
    work.set(TODAY, other);
    assert_eq!(work.tell(TODAY), [(None, vec![10], false)]);
    work.set(TODAY, terms(None, 60, BudgetPeriod::Day));
    assert_eq!(work.tell(TODAY), [(None, vec![50, 80, 100], true)], "another period");
    let scope = terms(None, 1, BudgetPeriod::Day).scope;
    assert!(work.on(day(TODAY), WorkCommand::DeleteBudget(scope)).is_ok());
    let again = work.on(day(TODAY), WorkCommand::DeleteBudget(scope));
    assert_eq!(again, Err(WorkRejection::BudgetNotFound));
    assert_eq!(work.tell(TODAY), []);
}

#[test]
fn a_clock_that_was_ahead_does_not_stop_the_count() {
    let mut work = Told::default();
    work.set(TODAY, terms(None, 100, BudgetPeriod::Month));
    work.set(TODAY, terms(Some(LIBRARY), 100, BudgetPeriod::Day));
    work.spend(TODAY, None, 30);
    work.spend(TODAY + 365, Some(LIBRARY), 90);
    work.tell(TODAY + 365);
    let spent = |work: &Told, at| {
        let budgets: Vec<_> = work.0.spending().budgets(TenantId::DEFAULT).collect();
        let spent = [0, 1].map(|n: usize| work.0.spending().spent_at(budgets[n], day(at)));
        spent.map(|(since, spent)| (since.to_string(), spent.pico()))
    };
    let found = |month: u64, today: u64| {
        [("2026-11-01".to_owned(), month), ("2026-11-22".to_owned(), today)]
    };
    assert_eq!(spent(&work, TODAY), found(30, 0), "before anything is recorded");
    work.spend(TODAY, Some(LIBRARY), 25);
    assert_eq!(spent(&work, TODAY), found(55, 25));
    assert_eq!(work.tell(TODAY), [(None, vec![50], false)]);
    work.spend(TODAY, None, 30);
    assert_eq!(work.tell(TODAY), [(None, vec![80], false)]);
    work.set(TODAY, terms(None, 60, BudgetPeriod::Month));
    assert_eq!(spent(&work, TODAY), found(85, 25));
    // And when that day comes, what was counted on it is not forgotten.
    work.spend(TODAY + 365, Some(LIBRARY), 5);
    assert_eq!(spent(&work, TODAY + 365).map(|(_since, spent)| spent), [95, 95]);
}

#[test]
fn s4_what_was_told_outlives_a_snapshot() {
    let mut work = Told::default();
    work.set(TODAY, terms(None, 100, BudgetPeriod::Month));
    work.spend(TODAY, None, 85);
    assert_eq!(work.tell(TODAY), [(None, vec![50, 80], false)]);
    work.0 = Work::read(&work.0.write()).unwrap();
    assert_eq!(work.tell(TODAY), []);
    work.spend(TODAY, None, 15);
    work.0 = Work::read(&work.0.write()).unwrap();
    assert_eq!(work.tell(TODAY), [(None, vec![100], true)]);
}

#[test]
fn there_are_no_more_budgets_than_may_be() {
    let mut work = Told::default();
    for n in 0..u128::try_from(crate::limits::BUDGETS_MAX).unwrap() {
        let library = LibraryId::from_bytes(n.to_be_bytes());
        work.set(TODAY, terms(Some(library), 1, BudgetPeriod::Month));
    }
    let full = work.on(day(TODAY), WorkCommand::SetBudget(terms(None, 1, BudgetPeriod::Month)));
    assert_eq!(full, Err(WorkRejection::BudgetsFull));
    let first = LibraryId::from_bytes([0; 16]);
    work.set(TODAY, terms(Some(first), 2, BudgetPeriod::Month));
}

#[test]
fn thresholds_are_percentages() {
    assert_eq!(BudgetTerms::threshold_fault(&[50, 80, 100]), None);
    assert_eq!(BudgetTerms::threshold_fault(&[]), None);
    for (thresholds, fault) in [
        (vec![0], "from 1 to 100, not 0"),
        (vec![101], "from 1 to 100, not 101"),
        (vec![7, 9, 7], "has 7 twice"),
        ((1..=11).collect(), "at most 10 percentages, not 11"),
    ] {
        let found = BudgetTerms::threshold_fault(&thresholds).unwrap();
        assert!(found.contains(fault), "{found}");
    }
}
