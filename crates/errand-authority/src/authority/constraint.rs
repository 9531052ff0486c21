//! Constraints on the arguments of a call, and the relations on them: `allows`, `is_subset_of`,
//! `intersect`.
//!
//! `is_subset_of` is sound, not complete: it may answer no when unsure, but never a wrong yes.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    escape::printable_name,
    path::is_below,
    value::{Arg, Decimal, ValueKind},
};
use crate::encoding::jcs;

/// Constraints on the arguments of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// The named arguments, each with its rule.
    pub arguments: BTreeMap<String, Rule>,
    /// Whether a call may have arguments without a rule here.
    pub allows_additional: bool,
}

/// Conditions on one argument, all of which must hold. An argument with a rule must be present,
/// except if the rule has no condition (`any`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The value is one of these. `equals` is a list of one.
    pub one_of: Option<Vec<Arg>>,
    /// The value has the kind of these and differs from each of them, also when read as a double.
    pub not_one_of: Vec<Arg>,
    /// The value is a number, at least this.
    pub min: Option<Decimal>,
    /// The value is a number, at most this.
    pub max: Option<Decimal>,
    /// The value is a string below this prefix.
    pub prefix: Option<String>,
    /// The value is an array that contains only these.
    pub subset: Option<Vec<Arg>>,
    /// The value is a string of at most this many characters, or an array of at most this many
    /// items.
    pub max_length: Option<u32>,
}

impl Constraints {
    /// Returns constraints that allow every call.
    #[must_use]
    pub fn none() -> Self {
        Self { arguments: BTreeMap::new(), allows_additional: true }
    }

    /// Returns whether every call is allowed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.allows_additional && self.arguments.values().all(Rule::is_any)
    }

    /// Returns whether a call with these arguments is allowed.
    #[must_use]
    pub fn allows(&self, arguments: &BTreeMap<String, Arg>) -> bool {
        self.first_violation(arguments).is_none()
    }

    /// Returns the name of the first argument, in the order of names, that is missing, has a value
    /// that its rule does not allow, or has no rule where every argument needs one.
    pub(super) fn first_violation<'a>(&'a self, arguments: &'a BTreeMap<String, Arg>) -> Option<&'a str> {
        let is_violated = |(name, rule): &(&String, &Rule)| {
            !arguments.get(*name).map_or_else(|| rule.is_any(), |argument| rule.allows(argument))
        };
        let violated = self.arguments.iter().find(is_violated).map(|(name, _)| name);
        let mut unknown =
            arguments.keys().filter(|name| !self.allows_additional && !self.arguments.contains_key(*name));
        violated.into_iter().chain(unknown.next()).min().map(String::as_str)
    }

    /// Returns whether `other` allows every call that `self` allows.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        let closed = other.allows_additional
            || (!self.allows_additional && self.arguments.keys().all(|name| other.arguments.contains_key(name)));
        closed
            && other.arguments.iter().all(|(name, theirs)| {
                theirs.is_any() || self.arguments.get(name).is_some_and(|ours| ours.is_subset_of(theirs))
            })
    }

    /// Returns where `self` exceeds `other`: at an argument, or at the arguments without a rule.
    /// With `in_full`, the path may name an argument that only `other` names.
    pub(super) fn excess_path(&self, other: &Self, in_full: bool) -> String {
        let at = |name: &str| format!(".constraints.{}", printable_name(name));
        let wider = other.arguments.iter().filter(|(name, theirs)| {
            !theirs.is_any() && !self.arguments.get(*name).is_some_and(|ours| ours.is_subset_of(theirs))
        });
        let (named, hidden) =
            wider.map(|(name, _)| name).partition::<Vec<_>, _>(|name| in_full || self.arguments.contains_key(*name));
        let mut unknown =
            self.arguments.keys().filter(|name| !other.allows_additional && !other.arguments.contains_key(*name));
        match (named.into_iter().next(), unknown.next()) {
            (Some(name), _) | (None, Some(name)) => at(name),
            (None, None) if hidden.is_empty() => ".additional_arguments".to_owned(),
            (None, None) => ".constraints".to_owned(),
        }
    }

    /// Returns constraints that allow what both allow, or `None` if they evidently allow no call.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let mut arguments = BTreeMap::new();
        for (name, ours) in &self.arguments {
            match other.arguments.get(name) {
                Some(theirs) => {
                    arguments.insert(name.clone(), ours.intersect(theirs)?);
                }
                None if other.allows_additional => {
                    arguments.insert(name.clone(), ours.clone());
                }
                // `any` here, unknown there: both allow a call without this argument.
                None if ours.is_any() => {}
                None => return None,
            }
        }
        for (name, theirs) in other.arguments.iter().filter(|(name, _)| !self.arguments.contains_key(*name)) {
            if self.allows_additional {
                arguments.insert(name.clone(), theirs.clone());
            } else if !theirs.is_any() {
                return None;
            }
        }
        Some(Self { arguments, allows_additional: self.allows_additional && other.allows_additional })
    }
}

impl Rule {
    /// Returns whether the rule has no condition.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether a value may satisfy the rule. A contradictory rule is a mistake of its
    /// author.
    #[must_use]
    pub fn is_satisfiable(&self) -> bool {
        match self.listed_values() {
            Some(list) => list.iter().any(|arg| self.allows(arg)),
            None => !self.is_contradictory(),
        }
    }

    /// Returns whether the argument satisfies the rule.
    #[must_use]
    pub fn allows(&self, argument: &Arg) -> bool {
        let number = |fits: &dyn Fn(&Decimal) -> bool| matches!(argument, Arg::Number(n) if fits(n));
        self.one_of.as_ref().is_none_or(|list| list.contains(argument))
            && self.not_one_of.iter().all(|no| no.kind() == argument.kind() && !argument.is_equal_as_double(no))
            && self.min.as_ref().is_none_or(|min| number(&|n| n >= min))
            && self.max.as_ref().is_none_or(|max| number(&|n| n <= max))
            && self.prefix.as_ref().is_none_or(|prefix| matches!(argument, Arg::Text(text) if is_below(text, prefix)))
            && self
                .subset
                .as_ref()
                .is_none_or(|set| matches!(argument, Arg::List(list) if list.iter().all(|item| set.contains(item))))
            && self.max_length.is_none_or(|max| value_length(argument).is_some_and(|length| length <= u64::from(max)))
    }

    /// Returns whether every argument that satisfies `self` satisfies `other`.
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        if let Some(list) = self.listed_values() {
            // Only these values can satisfy `self`, so trying each of them is exact.
            return list.iter().filter(|arg| self.allows(arg)).all(|arg| other.allows(arg));
        }
        if self.is_contradictory() {
            return true;
        }
        let not_less = |ours: &Option<Decimal>, theirs: &Option<Decimal>, fits: fn(&Decimal, &Decimal) -> bool| {
            theirs.as_ref().is_none_or(|theirs| ours.as_ref().is_some_and(|ours| fits(ours, theirs)))
        };
        other.one_of.is_none()
            && other.not_one_of.iter().all(|no| self.value_kind() == Some(no.kind()) && !self.allows(no))
            && not_less(&self.min, &other.min, |ours, theirs| ours >= theirs)
            && not_less(&self.max, &other.max, |ours, theirs| ours <= theirs)
            && other
                .prefix
                .as_ref()
                .is_none_or(|theirs| self.prefix.as_ref().is_some_and(|ours| is_below(ours, theirs)))
            && other.subset.as_ref().is_none_or(|theirs| {
                self.subset.as_ref().is_some_and(|ours| ours.iter().all(|item| theirs.contains(item)))
            })
            && other.max_length.is_none_or(|theirs| self.max_length.is_some_and(|ours| ours <= theirs))
    }

    /// Returns a rule for the values that satisfy both, or `None` if evidently no value does.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let prefix = match (&self.prefix, &other.prefix) {
            (Some(ours), Some(theirs)) if is_below(ours, theirs) => Some(ours),
            (Some(ours), Some(theirs)) if is_below(theirs, ours) => Some(theirs),
            (Some(_), Some(_)) => return None,
            (one, None) | (None, one) => one.as_ref(),
        };
        let both = Self {
            one_of: intersect_lists(self.one_of.as_ref(), other.one_of.as_ref()),
            not_one_of: union_lists(&self.not_one_of, &other.not_one_of),
            min: self.min.iter().chain(&other.min).max().cloned(),
            max: self.max.iter().chain(&other.max).min().cloned(),
            prefix: prefix.cloned(),
            subset: intersect_lists(self.subset.as_ref(), other.subset.as_ref()),
            max_length: self.max_length.iter().chain(&other.max_length).min().copied(),
        };
        // Only listed values can satisfy the rule, so the result lists those that do.
        let fitting = |list: &Vec<Arg>| list.iter().filter(|arg| both.allows(arg)).cloned().collect::<Vec<_>>();
        match both.one_of.as_ref().map(fitting) {
            Some(list) if list.is_empty() => None,
            Some(list) => Some(Self { one_of: Some(list), ..Self::default() }),
            None if !both.is_satisfiable() => None,
            None => Some(both),
        }
    }

    /// Returns the only values that can satisfy the rule, if they can be listed. A condition of the
    /// rule may exclude some of them.
    fn listed_values(&self) -> Option<Cow<'_, [Arg]>> {
        if let Some(list) = &self.one_of {
            return Some(list.into());
        }
        if self.subset.as_ref().is_some_and(Vec::is_empty) || self.max_length == Some(0) {
            return Some(vec![Arg::Text(String::new()), Arg::List(Vec::new())].into());
        }
        match (&self.min, &self.max) {
            (Some(min), Some(max)) if min == max => Some(vec![Arg::Number(min.clone())].into()),
            _ => None,
        }
    }

    /// Splits the rule into at least two rules that together allow the same values: one for each
    /// value if these can be listed, otherwise at a bound of one of `limits`. Returns `None` if
    /// neither is possible.
    pub(super) fn split(&self, limits: &[&Self]) -> Option<Vec<Self>> {
        if let Some(list) = self.listed_values() {
            let allowed = list.iter().filter(|arg| self.allows(arg)).cloned();
            let rules = allowed.map(|arg| Self { one_of: Some(vec![arg]), ..Self::default() }).collect::<Vec<_>>();
            return (rules.len() > 1).then_some(rules);
        }
        if self.min.is_none() && self.max.is_none() {
            return None;
        }
        let is_inside = |bound: &&Decimal| {
            self.min.as_ref().is_none_or(|min| min < *bound) && self.max.as_ref().is_none_or(|max| *bound < max)
        };
        let bound = limits.iter().flat_map(|limit| limit.min.iter().chain(&limit.max)).find(is_inside)?;
        let (below, above) = (Some(bound.clone()), Some(bound.clone()));
        Some(vec![Self { max: below, ..self.clone() }, Self { min: above, ..self.clone() }])
    }

    /// Returns the kind of every value that satisfies the rule, if the rule determines it.
    fn value_kind(&self) -> Option<ValueKind> {
        let number = (self.min.is_some() || self.max.is_some()).then_some(ValueKind::Number);
        let text = self.prefix.is_some().then_some(ValueKind::Text);
        let list = self.subset.is_some().then_some(ValueKind::List);
        number.or(text).or(list).or_else(|| self.not_one_of.first().map(Arg::kind))
    }

    /// Returns whether the rule requires two kinds at once, a number between crossed bounds, or a
    /// text that is shorter than its prefix.
    fn is_contradictory(&self) -> bool {
        let bounds = self.min.is_some() || self.max.is_some();
        let kinds = [bounds, self.prefix.is_some(), self.subset.is_some()].into_iter().filter(|is_set| *is_set).count();
        let crossed = matches!((&self.min, &self.max), (Some(min), Some(max)) if min > max);
        let unlike = self.not_one_of.iter().any(|no| Some(no.kind()) != self.value_kind());
        let unsized_kind =
            self.max_length.is_some() && !matches!(self.value_kind(), None | Some(ValueKind::Text | ValueKind::List));
        let too_long = self.prefix.as_ref().zip(self.max_length).is_some_and(|(prefix, max)| {
            u64::try_from(prefix.chars().count()).is_ok_and(|length| length > u64::from(max))
        });
        kinds > 1 || crossed || unlike || unsized_kind || too_long
    }
}

fn value_length(argument: &Arg) -> Option<u64> {
    let length = match argument {
        Arg::Text(text) => text.chars().count(),
        Arg::List(list) => list.len(),
        Arg::Null | Arg::Bool(_) | Arg::Number(_) | Arg::Object(_) => return None,
    };
    u64::try_from(length).ok()
}

fn intersect_lists(ours: Option<&Vec<Arg>>, theirs: Option<&Vec<Arg>>) -> Option<Vec<Arg>> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Some(ours.iter().filter(|arg| theirs.contains(arg)).cloned().collect()),
        (one, None) | (None, one) => one.cloned(),
    }
}

fn union_lists(ours: &[Arg], theirs: &[Arg]) -> Vec<Arg> {
    sort_canonical(ours.iter().chain(theirs))
}

/// Sorts values by their canonical texts (RFC 8785) and removes duplicates, so that a list has one
/// serialization.
pub(super) fn sort_canonical<'a>(values: impl IntoIterator<Item = &'a Arg>) -> Vec<Arg> {
    let text = |value: &Arg| {
        let value = value.to_canonical();
        value.and_then(|value| jcs::to_string(&value)).unwrap_or_default()
    };
    let sorted = values.into_iter().map(|value| (text(value), value.clone())).collect::<BTreeMap<_, _>>();
    sorted.into_values().collect()
}
