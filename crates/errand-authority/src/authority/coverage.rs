//! Coverage of one permission by several together: `one_of: [1, 2]` is covered by `equals: 1` and
//! `equals: 2`, and `min: 0, max: 9` by `max: 5` and `min: 5`.
//!
//! The permission is split into parts, each of which one of the others must cover. The parts
//! together allow what the permission allows, so the answer is sound.

use super::constraint::{Constraints, Rule};

/// The maximum number of comparisons for one permission. Beyond it, the answer is no.
const MAX_COMPARISONS: usize = 1024;

/// Returns whether every call that `constraints` allow is allowed by one of `others`. Sound, not
/// complete.
pub(super) fn is_covered(constraints: &Constraints, others: &[&Constraints]) -> bool {
    let mut comparisons = MAX_COMPARISONS;
    is_part_covered(constraints, others, &mut comparisons)
}

fn is_part_covered(part: &Constraints, others: &[&Constraints], comparisons: &mut usize) -> bool {
    for other in others {
        let Some(left) = comparisons.checked_sub(1) else { return false };
        *comparisons = left;
        if part.is_subset_of(other) {
            return true;
        }
    }
    let split = part.arguments.iter().find_map(|(name, rule)| Some((name, split_rule(rule, name, others)?)));
    split.is_some_and(|(name, rules)| {
        rules.into_iter().all(|rule| {
            let mut part = part.clone();
            part.arguments.insert(name.clone(), rule);
            is_part_covered(&part, others, comparisons)
        })
    })
}

/// Splits the rule of an argument where another rule allows only a part of it.
fn split_rule(rule: &Rule, name: &str, others: &[&Constraints]) -> Option<Vec<Rule>> {
    let limits = others.iter().filter_map(|other| other.arguments.get(name));
    let narrower = limits.filter(|limit| !rule.is_subset_of(limit)).collect::<Vec<_>>();
    if narrower.is_empty() { None } else { rule.split(&narrower) }
}
