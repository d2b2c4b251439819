//! Budgets for embedding, and what it cost, as those see them who pay.

use std::collections::BTreeMap;
use std::fmt;

use arrwdb_state::{
    Budget, BudgetPeriod, BudgetScope, BudgetTerms, Costs, Day, LibraryId, Money, Seq, TenantId,
    Timestamp, UsageKey, Used, Work, WorkCommand,
};

use crate::costs::CostFigures;
use crate::engine::{Engine, Inner};
use crate::error::EngineError;
use crate::request::Written;

/// A budget to set.
#[derive(Debug, Clone)]
pub struct NewBudget {
    /// The library; all of the tenant's, if none.
    pub library: Option<LibraryId>,
    /// How much.
    pub amount: Money,
    /// For what time.
    pub period: BudgetPeriod,
    /// Percentages at which somebody is told, 1 to 100, in any order.
    pub thresholds: Vec<u8>,
    /// Whether nothing more is paid for when it is spent.
    pub refuse: bool,
}

/// A budget now.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetStatus {
    /// As it was set.
    pub terms: BudgetTerms,
    /// When.
    pub set_at: Timestamp,
    /// The first day of the period; [`Day::OLDER`] for all time.
    pub since: Day,
    /// Spent in the period, what is not recorded yet included.
    pub spent: Money,
    /// When the next period begins; never for all time.
    pub renews_at: Option<Timestamp>,
}

/// Why nothing is paid for.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetRefusal(pub BudgetStatus);

impl fmt::Display for BudgetRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BudgetStatus { terms, spent, renews_at, .. } = &self.0;
        f.write_str("the embedding budget of ")?;
        match terms.scope.library {
            Some(library) => write!(f, "library {library}")?,
            None => f.write_str("all libraries together")?,
        }
        let time = match terms.period {
            BudgetPeriod::Day => "for today",
            BudgetPeriod::Month => "for this month",
            BudgetPeriod::Total => "in all",
        };
        let (spent, amount) = (spent.dollars(), terms.amount.dollars());
        write!(f, " is spent: {spent} of {amount} USD {time}")?;
        if let Some(at) = renews_at {
            write!(f, ", until {} 00:00 UTC", Day::of(*at))?;
        }
        f.write_str(
            "; raise it or set its refuse to false (PUT /v1/costs/budget), or send vectors of your own",
        )
    }
}

/// What costs are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CostGroup {
    /// The day in UTC.
    Day,
    /// The library.
    Library,
    /// Who embedded.
    Provider,
    /// With what.
    Model,
}

/// Which costs are asked for.
#[derive(Debug, Clone, Default)]
pub struct CostQuery {
    /// Since this day. Days that are not told apart any longer count only without any bound.
    pub from: Option<Day>,
    /// Up to this day.
    pub to: Option<Day>,
    /// Of this library.
    pub library: Option<LibraryId>,
    /// Told apart by these.
    pub groups: Vec<CostGroup>,
}

/// What embedding cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CostReport {
    /// All of it.
    pub total: Used,
    /// Told apart, in order; what it is not told apart by is blank.
    pub rows: Vec<(UsageKey, Used)>,
}

impl CostQuery {
    fn wants(&self, tenant: TenantId, key: &UsageKey) -> bool {
        // Nobody knows which days those were.
        let untold = key.day == Day::OLDER && (self.from.is_some() || self.to.is_some());
        key.tenant == tenant
            && !untold
            && self.from.is_none_or(|from| key.day >= from)
            && self.to.is_none_or(|to| key.day <= to)
            && self.library.is_none_or(|library| key.library == Some(library))
    }

    fn group(&self, key: &UsageKey) -> UsageKey {
        let by = |group| self.groups.contains(&group);
        let blank = || "".into();
        UsageKey {
            day: if by(CostGroup::Day) { key.day } else { Day::OLDER },
            tenant: key.tenant,
            library: key.library.filter(|_one| by(CostGroup::Library)),
            provider: if by(CostGroup::Provider) { key.provider.clone() } else { blank() },
            model: if by(CostGroup::Model) { key.model.clone() } else { blank() },
        }
    }
}

impl Engine {
    /// Sets a budget, or changes one: what was spent in its period counts.
    pub async fn set_budget(
        &self,
        tenant: TenantId,
        new: NewBudget,
    ) -> Result<Written<BudgetStatus>, EngineError> {
        let inner = &self.0;
        let NewBudget { library, amount, period, mut thresholds, refuse } = new;
        if let Some(library) = library {
            inner.spec(tenant, library, None).await?;
        }
        let invalid =
            |field: &str, detail: String| EngineError::Invalid { field: field.into(), detail };
        if amount == Money::ZERO {
            return Err(invalid("/amount_usd", "must be more than 0".into()));
        }
        if let Some(fault) = BudgetTerms::threshold_fault(&thresholds) {
            return Err(invalid("/thresholds", fault));
        }
        thresholds.sort_unstable();
        let scope = BudgetScope { tenant, library };
        let terms = BudgetTerms { scope, amount, period, thresholds, refuse };
        let written = inner.change_work(WorkCommand::SetBudget(terms)).await?;
        let found = inner.budgets(tenant).into_iter().find(|budget| budget.terms.scope == scope);
        // Somebody may have deleted it meanwhile.
        let value = found.ok_or(EngineError::BudgetNotFound)?;
        Ok(Written { seq: written.seq, value })
    }

    /// Deletes the budget of a library, or of all of the tenant's together.
    pub async fn delete_budget(
        &self,
        tenant: TenantId,
        library: Option<LibraryId>,
    ) -> Result<Written<()>, EngineError> {
        let scope = BudgetScope { tenant, library };
        self.0.work.change(WorkCommand::DeleteBudget(scope)).await
    }

    /// The tenant's budgets, that of all its libraries first, and the number that this is true at.
    pub async fn budgets(
        &self,
        tenant: TenantId,
        min_seq: Option<Seq>,
    ) -> Result<(Vec<BudgetStatus>, Seq), EngineError> {
        self.0.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        Ok((self.0.budgets(tenant), seq))
    }

    /// What the tenant's embedding cost, what is not recorded yet included, and the number that
    /// this is true at. O(rows that are told apart).
    pub async fn costs(
        &self,
        tenant: TenantId,
        query: &CostQuery,
        min_seq: Option<Seq>,
    ) -> Result<(CostReport, Seq), EngineError> {
        let inner = &self.0;
        inner.wait_for_work(min_seq).await?;
        let seq = self.work_seq();
        let mut groups: BTreeMap<UsageKey, Used> = BTreeMap::new();
        let mut total = Used::default();
        let mut count = |key: &UsageKey, used: &Used| {
            if query.wants(tenant, key) {
                total.add(used);
                groups.entry(query.group(key)).or_default().add(used);
            }
        };
        let published =
            || inner.work.look(|work| (work.spending().records(), work.spending().costs().clone()));
        let costs: Costs =
            inner.ledger.with_unpublished(published, |_costs, key, used| count(key, used));
        // Counted outside of all locks: there may be many.
        for (key, used) in costs.rows() {
            count(key, used);
        }
        Ok((CostReport { total, rows: groups.into_iter().collect() }, seq))
    }

    /// What embedding cost since the start.
    pub fn costs_since_start(&self) -> CostFigures {
        self.0.ledger.figures()
    }
}

impl Inner {
    /// The tenant's budgets.
    fn budgets(&self, tenant: TenantId) -> Vec<BudgetStatus> {
        let now = self.parts.clock.now();
        self.statuses(now, |work| {
            let budgets = work.spending().budgets(tenant);
            budgets.map(|budget| status(work, budget, now)).collect()
        })
    }

    /// Budgets as `find` finds them in what is published, by scope, with what is not published yet.
    fn statuses(
        &self,
        now: Timestamp,
        find: impl FnOnce(&Work) -> Vec<BudgetStatus>,
    ) -> Vec<BudgetStatus> {
        let published = || {
            let (records, found) = self.work.look(|work| (work.spending().records(), find(work)));
            let by_scope = found.into_iter().map(|budget| (budget.terms.scope, budget));
            (records, by_scope.collect::<BTreeMap<_, _>>())
        };
        let today = Day::of(now);
        // Everybody waits for this: rows that none of these budgets pays for are passed over.
        let found = self.ledger.with_unpublished(published, |found, key, used| {
            let own = key.library.map(Some);
            for library in [Some(None), own].into_iter().flatten() {
                let Some(budget) = found.get_mut(&BudgetScope { tenant: key.tenant, library })
                else {
                    continue;
                };
                let period = budget.terms.period;
                if period.start(key.day) == period.start(today) {
                    budget.spent = budget.spent.plus(used.cost);
                }
            }
        });
        found.into_values().collect()
    }

    /// Why nothing may be paid for of a library, if that is so.
    pub(crate) fn refusal(&self, tenant: TenantId, library: LibraryId) -> Option<BudgetRefusal> {
        let refuses = |work: &Work| {
            work.spending().budgets_for(tenant, library).any(|budget| budget.terms.refuse)
        };
        if !self.work.look(refuses) {
            return None;
        }
        let now = self.parts.clock.now();
        let budgets = self.statuses(now, |work| {
            let refusing = work.spending().budgets_for(tenant, library);
            let refusing = refusing.filter(|budget| budget.terms.refuse);
            refusing.map(|budget| status(work, budget, now)).collect()
        });
        budgets.into_iter().find(|budget| budget.spent >= budget.terms.amount).map(BudgetRefusal)
    }
}

fn status(work: &Work, budget: &Budget, now: Timestamp) -> BudgetStatus {
    let (since, spent) = work.spending().spent_at(budget, now);
    let terms = budget.terms.clone();
    let renews_at = terms.period.end(since);
    BudgetStatus { terms, set_at: budget.set_at, since, spent, renews_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_are_not_told_apart_are_of_no_time() {
        let key = |day| UsageKey {
            day,
            tenant: TenantId::DEFAULT,
            library: None,
            provider: "".into(),
            model: "".into(),
        };
        let wants = |from: Option<i64>, to: Option<i64>, day| {
            let (from, to) = (from.map(Day::new), to.map(Day::new));
            let query = CostQuery { from, to, ..CostQuery::default() };
            query.wants(TenantId::DEFAULT, &key(day))
        };
        assert!(wants(None, None, Day::OLDER));
        assert!(!wants(None, Some(9), Day::OLDER));
        assert!(!wants(Some(1), None, Day::OLDER));
        assert!(wants(None, Some(9), Day::new(9)) && !wants(None, Some(9), Day::new(10)));
        assert!(wants(Some(1), Some(9), Day::new(1)) && !wants(Some(1), None, Day::new(0)));
    }
}
