//! What embedding cost and what it may cost, as a part of the fold of work.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::{Budget, BudgetCrossed, BudgetScope, BudgetTerms};
use super::cost::{Costs, Day, Money, UsageRow};
use super::{WorkEntry, WorkRejection};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{LibraryId, TenantId, Timestamp};
use crate::limits::BUDGETS_MAX;

/// The least bytes of a budget.
const BUDGET_BYTES_MIN: usize = 52;

/// What embedding cost, budgets, and what was spent of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spending {
    costs: Costs,
    /// Entries that added to them.
    records: u64,
    budgets: BTreeMap<BudgetScope, Arc<Budget>>,
}

impl Spending {
    /// What embedding cost.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// How often something was added to that: who adds to it knows by this what is in it.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// All budgets of a tenant, its own first.
    pub fn budgets(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Budget>> {
        let of_tenant = |library| BudgetScope { tenant, library };
        let last = Some(LibraryId::from_bytes([0xff; 16]));
        self.budgets.range(of_tenant(None)..=of_tenant(last)).map(|(_scope, budget)| budget)
    }

    /// The budgets that what a library of a tenant uses is paid from.
    pub fn budgets_for(
        &self,
        tenant: TenantId,
        library: LibraryId,
    ) -> impl Iterator<Item = &Arc<Budget>> {
        let scopes = [None, Some(library)].map(|library| BudgetScope { tenant, library });
        scopes.into_iter().filter_map(|scope| self.budgets.get(&scope))
    }

    pub(super) fn decide_set(
        &self,
        terms: BudgetTerms,
        at: Timestamp,
    ) -> Result<WorkEntry, WorkRejection> {
        let is_new = !self.budgets.contains_key(&terms.scope);
        if is_new && self.budgets.len() >= BUDGETS_MAX {
            return Err(WorkRejection::BudgetsFull);
        }
        Ok(WorkEntry::BudgetSet { at, terms })
    }

    pub(super) fn decide_delete(
        &self,
        scope: BudgetScope,
        at: Timestamp,
    ) -> Result<WorkEntry, WorkRejection> {
        self.budgets.get(&scope).ok_or(WorkRejection::BudgetNotFound)?;
        Ok(WorkEntry::BudgetDeleted { at, scope })
    }

    pub(super) fn decide_tell(&self, at: Timestamp) -> Result<WorkEntry, WorkRejection> {
        let due = self.budgets.values().find_map(|budget| budget.due(at));
        due.map(WorkEntry::BudgetCrossed).ok_or(WorkRejection::Nothing)
    }

    /// What was spent of a budget in its period at this moment, and the period's first day.
    pub fn spent_at(&self, budget: &Budget, at: Timestamp) -> (Day, Money) {
        match budget.ahead(at) {
            None => budget.spent_at(at),
            Some(since) => {
                let BudgetTerms { scope, period, .. } = budget.terms;
                (since, self.costs.spent(scope, period, since))
            }
        }
    }

    pub(super) fn record(&mut self, at: Timestamp, rows: &[UsageRow], keep_since: Day) {
        self.records += 1;
        let Self { costs, budgets, .. } = &mut *self;
        for budget in budgets.values_mut() {
            if let Some(since) = budget.ahead(at) {
                let BudgetTerms { scope, period, .. } = budget.terms;
                Arc::make_mut(budget).begin(since, costs.spent(scope, period, since));
            }
        }
        for UsageRow { key, used } in rows {
            self.count((key.tenant, key.library), key.day, used.cost);
        }
        self.costs.add(rows, keep_since);
    }

    pub(super) fn delete(&mut self, scope: BudgetScope) {
        self.budgets.remove(&scope);
    }

    pub(super) fn note(&mut self, crossed: &BudgetCrossed) {
        if let Some(budget) = self.budgets.get_mut(&crossed.terms.scope) {
            Arc::make_mut(budget).note(crossed);
        }
    }

    fn count(&mut self, (tenant, library): (TenantId, Option<LibraryId>), day: Day, cost: Money) {
        let whole = BudgetScope { tenant, library: None };
        let own = library.map(|_one| BudgetScope { tenant, library });
        for scope in [Some(whole), own].into_iter().flatten() {
            if let Some(budget) = self.budgets.get_mut(&scope) {
                Arc::make_mut(budget).count(day, cost, &self.costs);
            }
        }
    }

    pub(super) fn set(&mut self, terms: &BudgetTerms, at: Timestamp) {
        let since = terms.period.start(Day::of(at));
        let spent = self.costs.spent(terms.scope, terms.period, since);
        let mut budget = Budget::new(terms.clone(), at, (since, spent));
        if let Some(before) = self.budgets.get(&terms.scope) {
            budget.succeed(before);
        }
        self.budgets.insert(terms.scope, Arc::new(budget));
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.u64(self.records);
        self.costs.write(out);
        out.count(self.budgets.len());
        self.budgets.values().for_each(|budget| budget.write(out));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let records = from.u64("records of usage")?;
        let costs = Costs::read(from)?;
        let budgets = (0..from.count(BUDGET_BYTES_MIN, "budgets")?)
            .map(|_budget| Budget::read(from).map(|it| (it.terms.scope, Arc::new(it))))
            .collect::<Result<_, _>>()?;
        Ok(Self { costs, records, budgets })
    }
}
