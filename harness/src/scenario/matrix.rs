//! From scenarios to a stable list of cells.

use super::file::Plan;
use crate::result::{CellKind, Role};
use crate::subject::{Registry, SyncPolicyText, UnknownSubject};
use crate::workload::random::{mix, mix_name};
use engine::SyncPolicy;
use serde::{Deserialize, Serialize};

/// One cell to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellPlan {
    /// `scenario/variant/subject/sync/level/kind`.
    pub id: String,
    /// What it is an instance of.
    pub plan: Plan,
    /// The subject.
    pub subject: String,
    /// Its role.
    pub role: Role,
    /// Whether it can be killed while it shrinks.
    pub shrinks: bool,
    /// Sync policy.
    pub sync: SyncPolicyText,
    /// Durability level.
    pub level: String,
    /// Kind of cell.
    pub kind: CellKind,
    /// Seed.
    pub seed: u64,
}

/// What of a matrix to run; empty lists take all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Kinds of cells.
    pub kinds: Vec<CellKind>,
    /// Subjects.
    pub subjects: Vec<String>,
    /// Sync policies.
    pub sync: Vec<SyncPolicy>,
}

/// The cells of these plans in a stable order. Policies that a subject cannot run under are left out;
/// what keeps no promise is measured once, and only measured; what is broken on purpose is only killed.
pub fn cells(plans: &[Plan], registry: &Registry, filter: &Filter, seed: u64) -> Result<Vec<CellPlan>, UnknownSubject> {
    for name in &filter.subjects {
        registry.get(name)?;
    }
    let takes = |list: &[String], name: &str| list.is_empty() || list.iter().any(|n| n == name);
    // A subject that no scenario lists but that was asked for by name, such as one's own, joins all of them.
    let lists = |plan: &Plan, name: &String| {
        plan.subjects.iter().any(|pattern| registry.matching(pattern).is_ok_and(|names| names.contains(name)))
    };
    let joins: Vec<&String> = filter.subjects.iter().filter(|n| plans.iter().all(|p| !lists(p, n))).collect();
    let mut cells = Vec::new();
    for plan in plans {
        let listed = plan.subjects.iter().map(|pattern| registry.matching(pattern)).collect::<Result<Vec<_>, _>>()?;
        for name in listed.iter().flatten().chain(joins.iter().copied()) {
            let subject = registry.get(name)?;
            let role = subject.role();
            // A canary stays in whatever is picked: without it no verdict counts.
            if !takes(&filter.subjects, name) && role != Role::Canary {
                continue;
            }
            for &kind in &plan.kinds {
                let fits = match role {
                    Role::Store => true,
                    Role::Baseline | Role::Null => kind == CellKind::Bench,
                    Role::Canary => kind != CellKind::Bench && subject.convicted_by().is_none_or(|by| by == kind),
                };
                if !fits || !(filter.kinds.is_empty() || filter.kinds.contains(&kind)) {
                    continue;
                }
                let chosen = |p: &&SyncPolicyText| {
                    subject.supports(p.0) && (role != Role::Store || filter.sync.is_empty() || filter.sync.contains(&p.0))
                };
                let others = [SyncPolicy::Never, SyncPolicy::Always].map(SyncPolicyText);
                let others = others.iter().filter(|p| subject.supports(p.0));
                let policies: Vec<&SyncPolicyText> = match role {
                    Role::Store => plan.sync.iter().filter(chosen).collect(),
                    _ => plan.sync.iter().filter(chosen).chain(others).take(1).collect(),
                };
                let levels = if role == Role::Store { &plan.levels[..] } else { &plan.levels[..plan.levels.len().min(1)] };
                for &&sync in &policies {
                    for level in levels {
                        let group = if plan.variant.is_empty() { String::new() } else { format!("{}/", plan.variant) };
                        let kind_name = format!("{kind:?}").to_lowercase();
                        let id = format!("{}/{group}{name}/{}/{level}/{kind_name}", plan.name, sync.0);
                        cells.push(CellPlan {
                            seed: mix_name(mix(seed, &[1]), &id),
                            id,
                            plan: plan.clone(),
                            subject: name.clone(),
                            role,
                            shrinks: subject.shrinks(),
                            sync,
                            level: level.clone(),
                            kind,
                        });
                    }
                }
            }
        }
    }
    Ok(cells)
}
