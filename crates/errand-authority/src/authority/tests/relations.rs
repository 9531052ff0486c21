use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;

#[test]
fn rule_allows_only_values_that_satisfy_it() {
    for (text, yes, no) in [
        (
            r#"{"equals":1}"#,
            &["1", "1.0", "10e-1"][..],
            &["2", "\"1\"", "true", "[1]", "null", "1.0000000000000000000001"][..],
        ),
        (r#"{"equals":0.3}"#, &["0.3", "0.30"], &["0.30000000000000004", "0.29999999999999998"]),
        (r#"{"equals":{"a":[1,{"b":null}]}}"#, &[r#"{"a":[1.0,{"b":null}]}"#], &[r#"{"a":[1]}"#, "{}"]),
        (r#"{"one_of":["a","é"]}"#, &["\"a\"", "\"\\u00e9\""], &["\"A\"", "\"e\\u0301\"", "\"\"", "[\"a\"]"]),
        (
            r#"{"not_one_of":["rm","dd"]}"#,
            &["\"ls\"", "\"\"", "\"RM\""],
            &["\"rm\"", "\"dd\"", "[\"rm\"]", "7", "null"],
        ),
        // Compared as doubles, which is what a tool may read.
        (
            r#"{"not_one_of":[4711,0]}"#,
            &["4712", "4711.5", "4711.000001", "1e400", "4711e99", "1e-300"],
            &[
                "4711",
                "4711.0",
                "4711.0000000000000000000001",
                "4710.9999999999999999999999",
                "47.11e2",
                "1e-400",
                "-1e-400",
            ],
        ),
        (
            r#"{"not_one_of":[[4711,{"a":1}]]}"#,
            &["[4711]", r#"[4711,{"b":1}]"#, r#"[4711,{"a":2}]"#],
            &[r#"[4711.0000000000000000000001,{"a":1}]"#, r#"[4711,{"a":1.0000000000000000000001}]"#, "4712"],
        ),
        (
            r#"{"min":0,"max":100}"#,
            &["0", "-0", "100", "1e2", "99.999"],
            &["-1", "100.00000000000000000001", "1e400", "\"5\"", "-1e-400"],
        ),
        (r#"{"max":18446744073709551615e-1}"#, &["0"], &["1844674407370955162"]),
        (
            r#"{"prefix":"/reports/"}"#,
            &["\"/reports/q3.md\""],
            &["\"/reports/../etc\"", "\"/reports\"", "7", "[\"/reports/a\"]"],
        ),
        (
            r#"{"subset":["a","b"]}"#,
            &["[]", "[\"a\"]", "[\"b\",\"a\",\"a\"]"],
            &["[\"c\"]", "[\"a\",1]", "\"a\"", "{}"],
        ),
        (r#"{"max_length":2}"#, &["\"\"", "\"éé\"", "\"😀😀\"", "[1,2]"], &["\"abc\"", "[1,2,3]", "12", "{}", "null"]),
        (r#"{"any":true}"#, &["null", "1", "\"x\"", "[[]]", "{}"], &[]),
        (
            r#"{"prefix":"a","max_length":3,"not_one_of":["abc"]}"#,
            &["\"a\"", "\"abd\""],
            &["\"abc\"", "\"abcd\"", "\"b\""],
        ),
    ] {
        // A request with this number is rejected.
        let Ok(_) = parse_one(&format!(
            r#"[{{"type":"mcp_tool","actions":["tools/call"],"identifier":"t","constraints":{{"x":{text}}}}}]"#
        )) else {
            assert!(text.contains("18446744073709551615"), "{text}");
            continue;
        };
        let rule = rule(text);
        for value in yes {
            assert!(rule.allows(&arg(value)), "{text} allows {value}");
        }
        for value in no {
            assert!(!rule.allows(&arg(value)), "{text} does not allow {value}");
        }
    }
}

#[test]
fn constraints_allow_only_named_or_additional_arguments() {
    for (members, yes, no) in [
        ("", &["{}", r#"{"a":1}"#][..], &[][..]),
        (r#""additional_arguments":false"#, &["{}"], &[r#"{"a":1}"#]),
        (
            r#""constraints":{"a":{"equals":1}}"#,
            &[r#"{"a":1}"#],
            &["{}", r#"{"a":2}"#, r#"{"a":1,"b":1}"#, r#"{"a":null}"#],
        ),
        (
            r#""constraints":{"a":{"equals":1}},"additional_arguments":true"#,
            &[r#"{"a":1}"#, r#"{"a":1,"b":1}"#],
            &["{}", r#"{"b":1}"#],
        ),
        (r#""constraints":{"a":{"any":true}}"#, &["{}", r#"{"a":[7]}"#], &[r#"{"A":1}"#]),
    ] {
        let constraints = constraints(members);
        for call in yes {
            assert!(constraints.allows(&arguments(call)), "{members} allows {call}");
        }
        for call in no {
            assert!(!constraints.allows(&arguments(call)), "{members} does not allow {call}");
        }
    }
}

#[test]
fn is_subset_of_decides_listed_cases() {
    for (narrow, wide) in [
        (r#"{"equals":5}"#, r#"{"min":1,"max":10}"#),
        (r#"{"one_of":[5,50]}"#, r#"{"min":1}"#),
        (r#"{"min":2,"max":3}"#, r#"{"min":1,"max":10}"#),
        (r#"{"prefix":"/reports/2026/"}"#, r#"{"prefix":"/reports"}"#),
        (r#"{"equals":"/reports/q3.md"}"#, r#"{"prefix":"/reports/"}"#),
        (r#"{"min":10}"#, r#"{"not_one_of":[1,2]}"#),
        (r#"{"not_one_of":["a","b"]}"#, r#"{"not_one_of":["a"]}"#),
        (r#"{"subset":["a"]}"#, r#"{"subset":["a","b"]}"#),
        (r#"{"max_length":2}"#, r#"{"max_length":3}"#),
        (r#"{"prefix":"a","max_length":2}"#, r#"{"max_length":3}"#),
        (r#"{"one_of":["a","b"]}"#, r#"{"one_of":["b","c","a"]}"#),
        (r#"{"equals":1}"#, r#"{"any":true}"#),
        // Rules with values that can be listed, without `one_of`.
        (r#"{"subset":[]}"#, r#"{"max_length":3}"#),
        (r#"{"subset":[]}"#, r#"{"subset":["a"],"max_length":2}"#),
        (r#"{"subset":[]}"#, r#"{"one_of":[[],"a"]}"#),
        (r#"{"max_length":0}"#, r#"{"one_of":["",[],1]}"#),
        (r#"{"max_length":0,"not_one_of":["a"]}"#, r#"{"one_of":["","b"]}"#),
        (r#"{"min":5,"max":5}"#, r#"{"one_of":[5,6]}"#),
        (r#"{"min":5,"max":5}"#, r#"{"min":1,"not_one_of":[6]}"#),
    ] {
        assert!(rule(narrow).is_subset_of(&rule(wide)), "{narrow} is a subset of {wide}");
        assert!(!rule(wide).is_subset_of(&rule(narrow)), "{wide} is not a subset of {narrow}");
    }
    for (narrow, wide) in [
        (r#""constraints":{"a":{"equals":1}}"#, r#""constraints":{"a":{"equals":1}},"additional_arguments":true"#),
        (
            r#""constraints":{"a":{"equals":1},"b":{"equals":2}},"additional_arguments":true"#,
            r#""constraints":{"a":{"min":0}},"additional_arguments":true"#,
        ),
        (r#""additional_arguments":false"#, ""),
        (r#""additional_arguments":false"#, r#""constraints":{"a":{"any":true}}"#),
    ] {
        assert!(constraints(narrow).is_subset_of(&constraints(wide)), "{narrow} is a subset of {wide}");
        assert!(!constraints(wide).is_subset_of(&constraints(narrow)), "{wide} is not a subset of {narrow}");
    }
}

/// Several permissions for a tool allow together what none of them allows alone.
#[test]
fn permissions_cover_together() {
    let set = |rules: &[&str]| {
        let one = |rules: &&str| permission("t", constraints(&format!(r#""constraints":{{{rules}}}"#)));
        rules.iter().map(one).collect::<Authority>()
    };
    for (narrow, wide) in [
        (&[r#""a":{"one_of":[1,2]}"#][..], &[r#""a":{"equals":1}"#, r#""a":{"equals":2}"#][..]),
        (&[r#""a":{"one_of":[1,"x"]}"#], &[r#""a":{"max":5}"#, r#""a":{"prefix":"x"}"#]),
        (&[r#""a":{"min":0,"max":9}"#], &[r#""a":{"max":5}"#, r#""a":{"min":5}"#]),
        (&[r#""a":{"min":0,"max":9}"#], &[r#""a":{"min":4}"#, r#""a":{"max":5}"#, r#""a":{"equals":100}"#]),
        (&[r#""a":{"min":0,"max":9}"#], &[r#""a":{"max":3}"#, r#""a":{"min":3,"max":6}"#, r#""a":{"min":6,"max":9}"#]),
        (
            &[r#""a":{"one_of":[1,2]},"b":{"one_of":["x","y"]}"#],
            &[
                r#""a":{"equals":1},"b":{"equals":"x"}"#,
                r#""a":{"equals":1},"b":{"equals":"y"}"#,
                r#""a":{"equals":2},"b":{"any":true}"#,
            ],
        ),
        (&[r#""a":{"max_length":0}"#], &[r#""a":{"equals":""}"#, r#""a":{"equals":[]}"#]),
    ] {
        assert!(set(narrow).is_subset_of(&set(wide)), "{narrow:?} {wide:?}");
        for n in 0..wide.len() {
            let mut fewer = wide.to_vec();
            fewer.remove(n);
            // The permission that covers nothing of it is not missed.
            let is_missed = !wide[n].contains("100");
            assert_eq!(!set(narrow).is_subset_of(&set(&fewer)), is_missed, "{narrow:?} {fewer:?}");
        }
    }
    for (narrow, wide) in [
        (r#""a":{"min":0,"max":9}"#, &[r#""a":{"max":5}"#, r#""a":{"min":6}"#][..]),
        (r#""a":{"min":0,"max":9}"#, &[r#""a":{"max":5}"#, r#""a":{"min":5,"not_one_of":[7]}"#]),
        (r#""a":{"one_of":[1,2]}"#, &[r#""a":{"equals":1}"#, r#""a":{"equals":2},"b":{"equals":1}"#]),
        (r#""a":{"any":true}"#, &[r#""a":{"min":0}"#, r#""a":{"max":0}"#]),
    ] {
        assert!(!set(&[narrow]).is_subset_of(&set(wide)), "{narrow:?} {wide:?}");
    }
    // Permissions for another definition do not help.
    let of = |permissions: &[&Permission]| permissions.iter().map(|p| (*p).clone()).collect::<Authority>();
    let [both, one, two] = [r#"{"one_of":[1,2]}"#, r#"{"equals":1}"#, r#"{"equals":2}"#]
        .map(|rule| permission("t", constraints(&format!(r#""constraints":{{"a":{rule}}}"#))));
    let pinned = Permission { digest: Some(digest('A')), ..two.clone() };
    assert!(of(&[&one, &two]).covers(&both) && !of(&[&one, &pinned]).covers(&both));
    let both = Permission { digest: Some(digest('A')), ..both };
    assert!(of(&[&one, &pinned]).covers(&both));
}

/// The answer comes soon, also where it would need many comparisons, and is no then.
#[test]
fn coverage_is_bounded() {
    let values = (0..256).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let wide = ["a", "b", "c", "d"].map(|name| format!(r#""{name}":{{"one_of":[{values}]}}"#)).join(",");
    let all = permission("t", constraints(&format!(r#""constraints":{{{wide}}}"#)));
    let others = (0..64).map(|n| {
        let rules = ["a", "b", "c", "d"].map(|name| format!(r#""{name}":{{"not_one_of":[{n}]}}"#)).join(",");
        permission("t", constraints(&format!(r#""constraints":{{{rules}}}"#)))
    });
    let others = others.collect::<Authority>();
    assert_eq!(others.len(), 64);
    for _ in 0..20 {
        assert!(!others.covers(&all));
    }
}

#[test]
fn authority_drops_covered_permissions() {
    let every = permission("t", Constraints::none());
    let some = permission("t", constraints(r#""constraints":{"a":{"max":5}}"#));
    let fewer = permission("t", constraints(r#""constraints":{"a":{"max":3}}"#));
    let other = permission("u", Constraints::none());
    let of = |permissions: &[&Permission]| permissions.iter().map(|p| (*p).clone()).collect::<Authority>();
    assert_eq!(of(&[&some, &every, &fewer, &other, &some]), of(&[&every, &other]));
    assert_eq!(of(&[&fewer, &some]), of(&[&some]));
    assert!(of(&[&some]).allows(&files(), &"t".parse().unwrap(), &arguments(r#"{"a":5}"#)));
    assert!(!of(&[&some]).allows(&files(), &"t".parse().unwrap(), &arguments(r#"{"a":6}"#)));
    assert!(!of(&[&some]).allows(&files(), &"u".parse().unwrap(), &arguments(r#"{"a":5}"#)));
    assert!(!of(&[&some]).allows_every_call(&files(), &"t".parse().unwrap()));
    assert_eq!(of(&[&every]).intersect(&of(&[&some, &other])), of(&[&some]));
    assert!(of(&[&some, &other]).covers(&fewer) && !of(&[&some, &other]).covers(&every));
}

/// Permissions for different actions are not compared: otherwise this test would run into its
/// timeout.
#[test]
fn large_catalogue_is_built_without_pairwise_comparison() {
    let tool = |n: usize| {
        let server = format!("https://server-{}.example.com/mcp", n % 600).parse().unwrap();
        Permission::unconstrained(server, format!("a_tool_with_a_name_{n}").parse().unwrap())
    };
    let catalogue = (0..60_000).map(tool).collect::<Authority>();
    assert_eq!(catalogue.len(), 60_000);
    assert!(catalogue.covers(&tool(59_999)) && !catalogue.covers(&tool(60_000)));
}

/// A digest narrows a permission. Permissions with different digests are disjoint.
#[test]
fn definition_digest_narrows_permission() {
    let any = permission("t", Constraints::none());
    let [one, other] = ['A', 'B'].map(|sign| Permission { digest: Some(digest(sign)), ..any.clone() });
    let of = |permissions: &[&Permission]| permissions.iter().map(|p| (*p).clone()).collect::<Authority>();
    for (narrow, wide, is_subset) in
        [(&one, &any, true), (&any, &one, false), (&one, &other, false), (&one, &one, true)]
    {
        assert_eq!(of(&[narrow]).is_subset_of(&of(&[wide])), is_subset, "{narrow:?} {wide:?}");
    }
    assert_eq!(of(&[&one]).intersect(&of(&[&any])), of(&[&one]));
    assert_eq!(of(&[&any]).intersect(&of(&[&one])), of(&[&one]));
    assert!(of(&[&one]).intersect(&of(&[&other])).is_empty());
    assert_eq!(of(&[&one, &any, &other]), of(&[&any]));
    assert_eq!(of(&[&one, &other]).len(), 2);
    assert_ne!(of(&[&one]).hash(), of(&[&other]).hash());
    assert_ne!(of(&[&one]).hash(), of(&[&any]).hash());
}

/// A list permission allows no call, also of a tool with the name of the method.
#[test]
fn listing_permission_does_not_allow_calls() {
    let lists = [Permission::listing(files(), ListAction::Tools)].into_iter().collect::<Authority>();
    let calls = [permission("tools/list", Constraints::none())].into_iter().collect::<Authority>();
    let tool = "tools/list".parse().unwrap();
    assert!(
        lists.allows_listing(&files(), ListAction::Tools) && !lists.allows_listing(&files(), ListAction::Resources)
    );
    assert!(!lists.allows(&files(), &tool, &BTreeMap::new()) && !lists.allows_every_call(&files(), &tool));
    assert!(calls.allows(&files(), &tool, &BTreeMap::new()) && !calls.allows_listing(&files(), ListAction::Tools));
    assert!(!lists.is_subset_of(&calls) && !calls.is_subset_of(&lists) && lists.intersect(&calls).is_empty());
    let elsewhere = "https://mail.example.com/mcp".parse().unwrap();
    assert!(!lists.allows_listing(&elsewhere, ListAction::Tools));
}

/// An exhaustive check of a small universe: a few rules for two arguments, and every call with a
/// few values.
#[test]
fn relations_are_exact_in_exhaustive_small_universe() {
    let rules = [
        r#"{"any":true}"#,
        r#"{"equals":1}"#,
        r#"{"one_of":[1,2]}"#,
        r#"{"one_of":["a","/r/x"]}"#,
        r#"{"not_one_of":[1]}"#,
        r#"{"not_one_of":["a"]}"#,
        r#"{"min":1}"#,
        r#"{"max":1}"#,
        r#"{"min":1,"max":2}"#,
        r#"{"prefix":"a"}"#,
        r#"{"prefix":"/r"}"#,
        r#"{"prefix":"/r/"}"#,
        r#"{"subset":[1]}"#,
        r#"{"subset":["a",1]}"#,
        r#"{"max_length":1}"#,
        r#"{"max_length":1,"prefix":"a"}"#,
        r#"{"max_length":1,"subset":[1]}"#,
    ]
    .map(rule);
    let rules = rules.into_iter().map(Some).chain([None]).collect::<Vec<_>>();
    let values = [
        "0",
        "1",
        "2",
        "1.5",
        "1.0000000000000000000001",
        "\"\"",
        "\"a\"",
        "\"ab\"",
        "\"/r\"",
        "\"/r/x\"",
        "\"/r/../x\"",
        "\"/rx\"",
        "[]",
        "[1]",
        "[1,\"a\"]",
        "[2]",
        "null",
        "true",
        "{}",
    ]
    .map(arg);
    let values = values.into_iter().map(Some).chain([None]).collect::<Vec<_>>();
    let named = |x: &Option<Rule>, additional| Constraints {
        arguments: x.iter().map(|rule| ("x".to_owned(), rule.clone())).collect(),
        allows_additional: additional,
    };
    let call = |x: &Option<Arg>, y: bool| {
        let y = y.then(|| ("y".to_owned(), arg("1")));
        x.iter().map(|value| ("x".to_owned(), value.clone())).chain(y).collect::<BTreeMap<_, _>>()
    };
    let (mut subsets, mut allowed, mut intersections) = (0, 0, 0);
    for a in rules.iter().flat_map(|x| [named(x, true), named(x, false)]) {
        assert!(a.is_subset_of(&a), "{a:?}");
        for b in rules.iter().flat_map(|x| [named(x, true), named(x, false)]) {
            let is_subset = a.is_subset_of(&b);
            let both = a.intersect(&b);
            if let Some(both) = &both {
                assert!(both.is_subset_of(&a) && both.is_subset_of(&b), "{a:?} {b:?} {both:?}");
                intersections += 1;
            }
            for call in values.iter().flat_map(|x| [call(x, false), call(x, true)]) {
                let (in_a, in_b) = (a.allows(&call), b.allows(&call));
                assert!(!is_subset || !in_a || in_b, "{a:?} is a subset of {b:?}, but not for {call:?}");
                let in_both = both.as_ref().is_some_and(|both| both.allows(&call));
                assert_eq!(in_both, in_a && in_b, "{a:?} and {b:?} for {call:?}");
                subsets += u32::from(is_subset && in_a);
                allowed += u32::from(in_a);
            }
        }
    }
    assert!(subsets > 500 && allowed > 5_000 && intersections > 300, "{subsets} {allowed} {intersections}");
}

// ---- generated ---------------------------------------------------------------------------------

fn scalar() -> impl Strategy<Value = Arg> {
    prop_oneof![
        (-3i32..6).prop_map(|n| arg(&n.to_string())),
        prop_oneof![Just("0.5"), Just("1e2"), Just("-0"), Just("9007199254740991")].prop_map(arg),
        prop_oneof![
            Just("\"a\""),
            Just("\"ab\""),
            Just("\"b\""),
            Just("\"/r\""),
            Just("\"/r/x\""),
            Just("\"/r/x/y\""),
            Just("\"/r/../x\""),
            Just("\"/rx\""),
            Just("\"\"")
        ]
        .prop_map(arg),
        Just(Arg::Null),
        any::<bool>().prop_map(Arg::Bool),
    ]
}

fn value() -> impl Strategy<Value = Arg> {
    prop_oneof![4 => scalar(), 1 => proptest::collection::vec(scalar(), 0..3).prop_map(Arg::List)]
}

fn generated_rule() -> impl Strategy<Value = Rule> {
    let number = || prop_oneof![Just("-1"), Just("0"), Just("1"), Just("3"), Just("0.5")];
    let decimal = |text: &str| super::super::Decimal::parse(text);
    let wire_sorted = |list: Vec<Arg>| super::super::constraint::sort_canonical(&list);
    prop_oneof![
        2 => Just(Rule::default()),
        4 => proptest::collection::vec(value(), 1..4).prop_map(move |l| Rule { one_of: Some(wire_sorted(l)), ..Rule::default() }),
        2 => proptest::collection::vec(scalar(), 1..3).prop_map(move |l| Rule { not_one_of: wire_sorted(l), ..Rule::default() }),
        3 => (proptest::option::of(number()), proptest::option::of(number())).prop_map(move |(min, max)| Rule {
            min: min.and_then(decimal),
            max: max.and_then(decimal),
            ..Rule::default()
        }),
        3 => (prop_oneof![Just("a"), Just("/r"), Just("/r/"), Just("/r/x"), Just("/")], proptest::option::of(0u32..6))
            .prop_map(|(p, max_length)| Rule { prefix: Some(p.into()), max_length, ..Rule::default() }),
        2 => (proptest::collection::vec(scalar(), 0..4), proptest::option::of(0u32..3))
            .prop_map(move |(l, max_length)| Rule { subset: Some(wire_sorted(l)), max_length, ..Rule::default() }),
        1 => (0u32..4).prop_map(|n| Rule { max_length: Some(n), ..Rule::default() }),
    ]
    .prop_filter("a request with it is rejected", Rule::is_satisfiable)
}

fn generated_constraints() -> impl Strategy<Value = Constraints> {
    let name = prop_oneof![Just("x".to_owned()), Just("y".to_owned()), Just("z".to_owned())];
    prop_oneof![
        1 => Just(Constraints::none()),
        6 => (proptest::collection::btree_map(name, generated_rule(), 0..3), any::<bool>())
            .prop_map(|(arguments, additional)| Constraints { arguments, allows_additional: additional }),
    ]
}

fn authorities() -> impl Strategy<Value = Authority> {
    let one = (0u8..2, generated_constraints(), digests())
        .prop_map(|(t, c, digest)| Permission { digest, ..permission(&format!("t{t}"), c) });
    let listing =
        prop_oneof![Just(ListAction::Tools), Just(ListAction::Resources)].prop_map(|l| Permission::listing(files(), l));
    let one = prop_oneof![8 => one, 1 => listing];
    proptest::collection::vec(one, 0..4).prop_map(|ps| ps.into_iter().collect())
}

proptest! {
    /// Hashing and auditing then need no sorting.
    #[test]
    fn authority_serialization_is_canonical(authority in authorities()) {
        let canonical = serde_json_canonicalizer::to_string(&authority).unwrap();
        prop_assert_eq!(serde_json::to_string(&authority).unwrap(), canonical);
    }
}

/// No digest, or one of two.
fn digests() -> impl Strategy<Value = Option<ToolDigest>> {
    prop_oneof![3 => Just(None), 2 => Just(Some(digest('A'))), 1 => Just(Some(digest('B')))]
}

/// Three authorities. Each is often derived from the next, so that `is_subset_of` often holds.
fn related_authorities() -> impl Strategy<Value = [Authority; 3]> {
    let cuts = || proptest::collection::vec(any::<u8>(), 1..4);
    (authorities(), authorities(), authorities(), cuts(), cuts(), 0u8..8).prop_map(|(a, b, c, first, second, how)| {
        let both = |b: &Authority, c: &Authority| b.iter().chain(c.iter()).cloned().collect::<Authority>();
        match how {
            0 => [a, b, c],
            1 => [a.intersect(&b), b.clone(), both(&b, &c)],
            2 => [a.clone(), a, both(&b, &c)],
            _ => {
                let wide = if c.is_empty() { both(&a, &b) } else { c };
                let less = shrink(&wide, &first);
                [shrink(&less, &second), less, wide]
            }
        }
    })
}

/// Returns a narrower authority, with one change for each number.
fn shrink(authority: &Authority, numbers: &[u8]) -> Authority {
    let mut permissions = authority.iter().cloned().collect::<Vec<_>>();
    for number in numbers.iter().map(|number| usize::from(*number)) {
        let many = permissions.len().max(1);
        let Some(one) = permissions.get_mut(number % many).filter(|one| one.tool().is_some()) else { continue };
        match number / many % 6 {
            0 => one.digest = one.digest.clone().or_else(|| Some(digest('A'))),
            1 => one.constraints.allows_additional = false,
            2 if one.constraints.allows_additional => {
                one.constraints.arguments.entry("z".to_owned()).or_insert_with(|| rule(r#"{"max":3}"#));
            }
            3 if many > 1 => drop(permissions.remove(number % many)),
            _ => one.constraints.arguments.values_mut().for_each(tighten),
        }
    }
    permissions.into_iter().collect()
}

/// Narrows a rule, where possible.
fn tighten(rule: &mut Rule) {
    let smaller = match rule {
        Rule { one_of: Some(list), .. } if list.len() > 1 => {
            Rule { one_of: Some(list[1..].to_vec()), ..Rule::default() }
        }
        Rule { one_of: Some(_), .. } => return,
        Rule { prefix: Some(prefix), .. } if prefix.contains('/') => {
            Rule { prefix: Some(format!("{}/x", prefix.trim_end_matches('/'))), ..rule.clone() }
        }
        Rule { subset: Some(list), .. } if !list.is_empty() => {
            Rule { subset: Some(list[1..].to_vec()), ..rule.clone() }
        }
        Rule { min: Some(_), max: None, .. } => Rule { max: super::super::Decimal::parse("3"), ..rule.clone() },
        Rule { max_length: Some(length), .. } => Rule { max_length: length.checked_sub(1), ..rule.clone() },
        Rule { min: None, max: None, .. } if rule.is_any() => Rule { max_length: Some(2), ..Rule::default() },
        _ => return,
    };
    if smaller.is_satisfiable() && smaller.max_length.is_some() == (rule.max_length.is_some() || rule.is_any()) {
        *rule = smaller;
    }
}

/// Calls of a tool with one of two definitions.
fn calls() -> impl Strategy<Value = (u8, BTreeMap<String, Arg>, ToolDigest)> {
    let name = prop_oneof![Just("x".to_owned()), Just("y".to_owned()), Just("z".to_owned())];
    (0u8..2, proptest::collection::btree_map(name, value(), 0..3), prop_oneof![Just(digest('A')), Just(digest('B'))])
}

/// The permissions that apply to a tool with this definition.
fn part_for_definition(authority: &Authority, digest: &ToolDigest) -> Authority {
    authority.iter().filter(|p| p.digest.as_ref().is_none_or(|pinned| pinned == digest)).cloned().collect()
}

/// Counts of the cases in which a property was not vacuous.
#[derive(Default)]
struct Coverage {
    /// Pairs with a call, those with a proper subset, and those where the call is allowed too.
    tried: Cell<u32>,
    subsets: Cell<u32>,
    used: Cell<u32>,
    /// Pairs with a proper subset.
    proper_subsets: Cell<u32>,
    /// Chains of three proper subsets.
    proper_subset_chains: Cell<u32>,
}

fn count_if(cell: &Cell<u32>, is_one: bool) {
    cell.set(cell.get() + u32::from(is_one));
}

/// 12,500 chains of three authorities with eight calls each: 100,000 cases of "a subset allows no
/// more".
#[test]
fn subset_and_intersection_are_sound_over_generated_cases() {
    let mut runner = TestRunner::new(Config { cases: 12_500, failure_persistence: None, ..Config::default() });
    let coverage = Coverage::default();
    let calls = proptest::collection::vec(calls(), 8);
    runner
        .run(&(related_authorities(), calls), |([a, b, c], calls)| {
            prop_assert!(a.is_subset_of(&a), "reflexive");
            let is_chain = a.is_subset_of(&b) && b.is_subset_of(&c);
            prop_assert!(!is_chain || a.is_subset_of(&c), "transitive");
            count_if(&coverage.proper_subset_chains, is_chain && !a.is_empty() && a != b && b != c && a != c);
            count_if(&coverage.proper_subsets, a.is_subset_of(&c) && !a.is_empty() && a != c);
            let json = serde_json::to_string(&a).unwrap();
            let back = serde_json::from_str::<Authority>(&json).unwrap();
            prop_assert_eq!(back.hash(), a.hash(), "serialization round-trips");
            prop_assert!(back.is_subset_of(&a) && a.is_subset_of(&back));
            for (a, b, calls) in [(&a, &b, &calls[..]), (&b, &c, &[])] {
                let (is_subset, both) = (a.is_subset_of(b), a.intersect(b));
                prop_assert!(both.is_subset_of(a) && both.is_subset_of(b), "an intersection is a subset of both");
                count_if(&coverage.proper_subsets, is_subset && !a.is_empty() && a != b);
                for listing in ListAction::ALL {
                    let allows = |authority: &Authority| authority.allows_listing(&files(), listing);
                    prop_assert!(!(is_subset && allows(a)) || allows(b), "a subset allows more");
                    prop_assert_eq!(allows(&both), allows(a) && allows(b));
                }
                for (tool, call, digest) in calls {
                    let tool = format!("t{tool}").parse().unwrap();
                    let allows =
                        |authority: &Authority| part_for_definition(authority, digest).allows(&files(), &tool, call);
                    prop_assert!(!(is_subset && allows(a)) || allows(b), "a subset allows more");
                    prop_assert_eq!(allows(&both), allows(a) && allows(b), "an intersection allows what both allow");
                    count_if(&coverage.tried, true);
                    count_if(&coverage.subsets, is_subset && !a.is_empty() && a != b);
                    count_if(&coverage.used, is_subset && a != b && allows(a));
                }
            }
            Ok(())
        })
        .unwrap();
    for (what, count, least) in [
        ("cases", &coverage.tried, 100_000),
        ("proper subset", &coverage.subsets, 25_000),
        ("proper subset, with an allowed call", &coverage.used, 1_000),
        ("pairs with a proper subset", &coverage.proper_subsets, 10_000),
        ("chains of three", &coverage.proper_subset_chains, 1_000),
    ] {
        assert!(count.get() >= least, "{what}: {} of {least}", count.get());
    }
}
