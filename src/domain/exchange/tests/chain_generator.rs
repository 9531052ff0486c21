//! Generated registries and sequences of steps, legal and illegal.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{
    authority::{Arg, ToolUse},
    registry::{
        KnownTools,
        tool::{KnownTool, ToolDefinition},
    },
};

/// The scopes of tools. Resources share them on purpose.
const SCOPES: [&str; 4] = ["s:read", "s:write", "s:send", "s:drop"];

/// The input from which a world is built.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    /// For each resource, the scopes of its tools and its lifetime cap.
    resources: Vec<(Vec<u8>, Option<u16>)>,
    /// For each agent: its tools, the agents it may delegate to (bits), and its lifetime cap.
    agents: Vec<(ToolMask, u16, Option<u16>)>,
    /// For each agent: whether it is a broker, and the limits of its edges.
    edges: Vec<(bool, EdgeLimits)>,
    /// The scopes of the user token; `None`: not a ceiling.
    scopes: Option<u8>,
    /// The tools that the user's groups entitle to, if there are such rules.
    entitlements: Option<ToolMask>,
    /// The maximum length of a chain.
    max_chain: usize,
    /// The steps, in order.
    pub(super) steps: Vec<Step>,
}

/// Tools by bits, and the constraints of each, three bits per tool.
type ToolMask = (u16, u64);

/// The agents (bits) to which edges have a depth, the depth, the agents (bits) to which edges allow
/// only some tools, and these tools.
type EdgeLimits = (u16, u8, u16, ToolMask);

/// The edges of an agent: target, depth and authority; `None`: unlimited.
type Edges = std::collections::BTreeMap<usize, (Option<u8>, Option<Authority>)>;

/// The arguments of a call.
type Arguments = std::collections::BTreeMap<String, Arg>;

/// Constraints of a tool in a ceiling. Some include each other, and some are disjoint.
fn tool_rules(n: u64) -> Value {
    match n {
        1 => json!({"constraints": {"n": {"max": 5}}}),
        2 => json!({"constraints": {"n": {"max": 3}, "p": {"any": true}}}),
        3 => json!({"constraints": {"n": {"one_of": [1, 3, 6]}}, "additional_arguments": true}),
        4 => json!({"constraints": {"p": {"prefix": "/a/"}}, "additional_arguments": true}),
        5 => json!({"constraints": {"n": {"any": true}, "p": {"prefix": "/a/b/"}}}),
        6 => json!({"additional_arguments": false}),
        _ => json!({}),
    }
}

/// Calls for comparing authorities independently of the relation under test.
fn sample_calls() -> Vec<Arguments> {
    let numbers = ["", "1", "3", "5", "6"];
    let paths = ["", r#""/a/x""#, r#""/a/b/x""#, r#""/c""#];
    let mut calls = Vec::new();
    for (n, p, other) in numbers.iter().flat_map(|n| paths.iter().flat_map(move |p| [(n, p, ""), (n, p, "true")])) {
        let named = [("n", *n), ("p", *p), ("o", other)].into_iter().filter(|(_, value)| !value.is_empty());
        calls.push(named.map(|(name, value)| (name.to_owned(), Arg::parse(value, 1).unwrap())).collect());
    }
    calls
}

/// One step.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) operation: u8,
    /// The token, counted from the newest; mostly 0.
    pub(super) token: u8,
    /// The presenter of a stray step, and the agent to hand over to.
    pub(super) agent: u8,
    /// Whether a party without the right tries it.
    pub(super) is_stray: bool,
    /// The requested tools, of those of the parent; of all tools if `is_greedy`.
    pub(super) mask: u16,
    /// Additional constraints of the request.
    pub(super) rules: u64,
    pub(super) is_greedy: bool,
    pub(super) uses_scope: bool,
    pub(super) expires_in: Option<u16>,
    /// Seconds before the step.
    pub(super) wait_seconds: u8,
}

fn mostly<T: std::fmt::Debug + Clone + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![5 => Just(usual), 1 => other].boxed()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        (any::<u8>(), mostly(0, 0..6u8), any::<u8>(), mostly(false, Just(true))),
        (mostly(u16::MAX, any::<u16>()), mostly(0, any::<u64>()), mostly(false, Just(true)), any::<bool>()),
        (mostly(None, proptest::option::of(0..400u16)), mostly(0, 0..90u8)),
    );
    let step = step.prop_map(
        |((operation, token, agent, is_stray), (mask, rules, is_greedy, uses_scope), (expires_in, wait_seconds))| {
            Step { operation, token, agent, is_stray, mask, rules, is_greedy, uses_scope, expires_in, wait_seconds }
        },
    );
    proptest::collection::vec(step, 6..36)
}

pub(super) fn seeds() -> impl Strategy<Value = Seed> {
    let cap = || mostly(None, (10..400u16).prop_map(Some));
    let resource = (proptest::collection::vec(0..4u8, 1..4), cap());
    let some = || (mostly(u16::MAX, any::<u16>()), mostly(0, any::<u64>()));
    let agent = (some(), mostly(u16::MAX, any::<u16>()), cap());
    let edges = (mostly(0, any::<u16>()), 1..=7u8, mostly(0, any::<u16>()), some());
    // Some worlds have unlimited edges only, which permits the longest chains.
    let plain = (false, (0, 1, 0, (0, 0)));
    let edges = prop_oneof![
        2 => Just(vec![plain; 10]),
        3 => proptest::collection::vec((mostly(false, Just(true)), edges), 10),
    ];
    (
        proptest::collection::vec(resource, 1..4),
        proptest::collection::vec(agent, 3..10),
        edges,
        mostly(Some(0b1111), proptest::option::of(any::<u8>())),
        mostly(None, proptest::option::of(some())),
        mostly(8, 1..=8usize),
        steps(),
    )
        .prop_map(|(resources, agents, edges, scopes, entitled, max_chain, steps)| Seed {
            resources,
            agents,
            edges,
            scopes,
            entitlements: entitled,
            max_chain,
            steps,
        })
}

/// A registry, and the same facts in plain form to check decisions against.
pub(super) struct World {
    pub(super) objects: Vec<Value>,
    pub(super) registry: Registry,
    pub(super) agents: Vec<String>,
    pub(super) resources: Vec<String>,
    /// Every tool: the resource's URI, its name, its scope.
    pub(super) catalogue: Vec<(String, String, String)>,
    /// The ceiling of each agent.
    pub(super) ceilings: Vec<Authority>,
    /// The edges of each agent.
    pub(super) edges: Vec<Edges>,
    /// Which agents are brokers.
    pub(super) brokers: Vec<bool>,
    pub(super) user: UserClaims,
    /// The ceiling of the user.
    pub(super) user_ceiling: Authority,
    pub(super) tokens: TokenLimits,
    /// See [`sample_calls`].
    pub(super) calls: Vec<Arguments>,
    /// The accepted definitions, of every second tool.
    pub(super) known_tools: KnownTools,
}

pub(super) fn uri(n: usize) -> String {
    format!("https://r{n}.example.com/mcp")
}

fn permission(uri: &str, tool: &str) -> Permission {
    Permission::unconstrained(uri.parse().unwrap(), tool.parse().unwrap())
}

/// An entry of a ceiling, with the constraints that three bits select; mostly none.
fn tool_entry(tool: &str, rules_of_all: u64, n: usize) -> Value {
    let mut written = tool_rules(rules_of_all >> (3 * (n % 16)) & 7);
    written["identifier"] = tool.into();
    written
}

fn permission_with_rules(uri: &str, tool: &str, rules_of_all: u64, n: usize) -> Permission {
    let some = serde_json::from_value::<ToolUse>(tool_entry(tool, rules_of_all, n)).unwrap();
    some.permission_at(&uri.parse().unwrap())
}

fn has_bit(mask: u16, n: usize) -> bool {
    mask >> (n % 16) & 1 == 1
}

fn accepted_tools(catalogue: &[(String, String, String)]) -> KnownTools {
    let mut known = KnownTools::new();
    for (at, tool, _) in catalogue.iter().step_by(2) {
        let digest = ToolDefinition::new(tool, Some(at), &Map::new()).unwrap().digest();
        let id = at.trim_start_matches("https://").split('.').next().unwrap().parse().unwrap();
        let digests = KnownTool { accepted: Some(digest.clone()), observed: Some(digest) };
        known.entry(id).or_default().insert(tool.parse().unwrap(), digests);
    }
    known
}

impl World {
    pub(super) fn new(seed: &Seed) -> Self {
        let catalogue = seed.resources.iter().enumerate().flat_map(|(r, (scopes, _))| {
            let tool =
                move |(t, scope): (usize, &u8)| (uri(r), format!("t{t}"), SCOPES[usize::from(*scope)].to_owned());
            scopes.iter().enumerate().map(tool)
        });
        let catalogue = catalogue.collect::<Vec<_>>();
        let chosen = |(mask, rules): ToolMask| {
            let chosen = catalogue.iter().enumerate().filter(|(n, _)| has_bit(mask, *n));
            chosen.map(|(n, (uri, tool, _))| permission_with_rules(uri, tool, rules, n)).collect::<Authority>()
        };
        // For each resource, the access entries or entitlement rules for exactly these tools.
        let entries = |(mask, rules): ToolMask| {
            let of = |r: usize| {
                let tools = catalogue.iter().enumerate().filter(|(n, (at, ..))| has_bit(mask, *n) && *at == uri(r));
                tools.map(|(n, (_, tool, _))| tool_entry(tool, rules, n)).collect::<Vec<_>>()
            };
            let all = (0..seed.resources.len()).map(|r| (format!("r{r}"), of(r)));
            all.filter(|(_, tools)| !tools.is_empty()).collect::<Vec<_>>()
        };
        let access = |tools| {
            entries(tools).into_iter().map(|(r, tools)| json!({"resource": r, "tools": tools})).collect::<Vec<_>>()
        };
        let count = seed.agents.len();
        let brokers = seed.edges.iter().take(count).map(|(broker, _)| *broker).collect::<Vec<_>>();
        let limited = |a: usize, b: usize| {
            let (_, (deep, depth, narrow, tools)) = seed.edges[a];
            // The registry rejects an edge that allows nothing.
            let lets = has_bit(narrow, b) && !entries(tools).is_empty();
            (has_bit(deep, b).then_some(depth), lets.then_some(tools))
        };
        let edges = (0..count).map(|a| {
            let others = (0..count).filter(|b| *b != a && has_bit(seed.agents[a].1, *b));
            let others = others.map(|b| (b, limited(a, b)));
            others.map(|(b, (depth, tools))| (b, (depth, tools.map(chosen)))).collect::<Edges>()
        });
        let edges = edges.collect::<Vec<_>>();
        let edge = |a: usize, b: usize| match limited(a, b) {
            (None, None) => json!(format!("a{b}")),
            (depth, tools) => json!({"agent": format!("a{b}"), "depth": depth, "access": tools.map(access)}),
        };
        let rules = entries(seed.entitlements.unwrap_or_default()).into_iter().map(
            |(r, tools)| json!({"to": {"claim": {"name": "groups", "value": "staff"}}, "resource": r, "tools": tools}),
        );
        let mut rules = rules.collect::<Vec<_>>();
        if seed.entitlements.is_some() || seed.scopes.is_none() {
            // A rule that never applies, so that rules exist.
            rules.push(json!({"to": {"claim": {"name": "groups", "value": "boss"}}, "tools": ["t0", "t1", "t2"]}));
        }
        let mode = if seed.scopes.is_some() { "ceiling" } else { "ignore" };
        let mut objects =
            vec![json!({"kind": "issuer", "body": {"issuer": LOGIN, "keys": "discovery", "audiences": [US],
            "algorithms": ["RS256"], "token_types": ["jwt"], "subject_scopes": mode, "entitlements": rules}})];
        for (a, (tools, _, cap)) in seed.agents.iter().enumerate() {
            let to = edges[a].keys().map(|b| edge(a, *b)).collect::<Vec<_>>();
            let (kind, known_as) =
                if brokers[a] { ("broker", json!({})) } else { ("agent", json!({LOGIN: [format!("app{a}")]})) };
            objects.push(json!({"kind": "agent", "body": {"id": format!("a{a}"), "kind": kind,
                "authentication": secret(), "known_as": known_as, "access": access(*tools), "may_delegate_to": to,
                "max_token_lifetime": cap}}));
        }
        for (r, (_, cap)) in seed.resources.iter().enumerate() {
            let tools = catalogue.iter().filter(|(at, ..)| *at == uri(r));
            let tools = tools.map(|(_, tool, scope)| json!({"name": tool, "scope": scope, "effect": "read"}));
            objects.push(json!({"kind": "resource", "body": {"id": format!("r{r}"), "uri": uri(r),
                "authentication": secret(), "tools": tools.collect::<Vec<_>>(), "max_token_lifetime": cap}}));
        }
        let scopes = seed.scopes.map(|bits| {
            let bits = u16::from(bits);
            SCOPES
                .iter()
                .enumerate()
                .filter(|(n, _)| has_bit(bits, *n))
                .map(|(_, scope)| (*scope).to_owned())
                .collect::<Vec<_>>()
        });
        let by_scope = |(at, tool, scope): &(String, String, String)| {
            scopes.as_ref().is_none_or(|has| has.contains(scope)).then(|| permission(at, tool))
        };
        let by_scope = catalogue.iter().filter_map(by_scope).collect::<Authority>();
        let by_rule = seed.entitlements.map(chosen).or(seed.scopes.is_none().then(Authority::default));
        let mut user = bob(&json!(["staff"]));
        user.requester = alice().requester;
        user.scope = scopes.map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
        let known = accepted_tools(&catalogue);
        Self {
            registry: registry(objects.clone()).with_tools(known.clone()),
            known_tools: known,
            objects,
            agents: (0..count).map(|a| format!("a{a}")).collect(),
            resources: (0..seed.resources.len()).map(|r| format!("r{r}")).collect(),
            ceilings: seed.agents.iter().map(|(tools, ..)| chosen(*tools)).collect(),
            edges,
            brokers,
            user_ceiling: by_rule.map_or(by_scope.clone(), |by_rule| by_scope.intersect(&by_rule)),
            user,
            tokens: TokenLimits { max_chain: seed.max_chain, ..TokenLimits::default() },
            catalogue,
            calls: sample_calls(),
        }
    }

    pub(super) fn all_permissions(&self) -> Authority {
        self.catalogue.iter().map(|(at, tool, _)| permission(at, tool)).collect()
    }

    /// Every tool with these constraints.
    pub(super) fn permissions_with_rules(&self, rules: u64) -> Authority {
        self.catalogue.iter().enumerate().map(|(n, (at, tool, _))| permission_with_rules(at, tool, rules, n)).collect()
    }

    fn rebuild(&mut self) {
        self.registry = registry(self.objects.clone()).with_tools(self.known_tools.clone());
    }

    /// Removes one edge.
    pub(super) fn remove_edge(&mut self, a: usize) {
        let Some((b, _)) = self.edges[a].pop_last() else { return };
        let name = format!("a{b}");
        let body = self.objects.iter_mut().find(|o| o["body"]["id"] == self.agents[a]).unwrap();
        let list = body["body"]["may_delegate_to"].as_array_mut().unwrap();
        list.retain(|edge| *edge != name && edge["agent"] != name);
        self.rebuild();
    }

    /// Limits an edge to one tool.
    pub(super) fn narrow_edge(&mut self, a: usize, b: usize) {
        let Some((depth, lets)) = self.edges[a].get_mut(&b) else { return };
        let (at, tool, _) = &self.catalogue[0];
        *lets = Some(std::iter::once(permission(at, tool)).collect());
        let name = format!("a{b}");
        let edge = json!({"agent": name, "depth": depth, "access": [{"resource": "r0", "tools": [tool]}]});
        let body = self.objects.iter_mut().find(|o| o["body"]["id"] == self.agents[a]).unwrap();
        for old in body["body"]["may_delegate_to"].as_array_mut().unwrap() {
            if *old == name || old["agent"] == name {
                *old = edge.clone();
            }
        }
        self.rebuild();
    }

    /// Returns the scopes whose tools are all in `authority`, computed tool by tool.
    pub(super) fn covered_scopes(&self, authority: &Authority, by: Option<&str>) -> Vec<String> {
        let mut covered = Vec::new();
        for scope in SCOPES {
            let read = self.catalogue.iter().filter(|(at, _, s)| s == scope && by.is_none_or(|by| by == at));
            let read = read.map(|(at, tool, _)| (at.parse().unwrap(), tool.parse().unwrap())).collect::<Vec<_>>();
            if !read.is_empty() && read.iter().all(|(at, tool)| authority.allows_every_call(at, tool)) {
                covered.push(scope.to_owned());
            }
        }
        covered.sort();
        covered
    }

    pub(super) fn disable(&mut self, id: &str) {
        let body = self.objects.iter_mut().find(|o| o["body"]["id"] == id).unwrap();
        body["body"]["disabled"] = true.into();
        self.rebuild();
    }

    /// Accepts a changed definition of a tool. Earlier tokens are not valid for it.
    pub(super) fn accept_changed_tool(&mut self, n: usize) {
        let mut all = self.known_tools.values_mut().flat_map(BTreeMap::iter_mut).collect::<Vec<_>>();
        let count = all.len();
        let Some((name, tool)) = all.get_mut(n % count.max(1)) else { return };
        let text = format!("after {:?}", tool.accepted);
        let next = ToolDefinition::new(name.as_str(), Some(&text), &Map::new()).unwrap().digest();
        **tool = KnownTool { accepted: Some(next.clone()), observed: Some(next) };
        self.rebuild();
    }

    /// Returns whether each tool is bound to its accepted definition, if it has one.
    pub(super) fn has_accepted_definitions(&self, authority: &Authority) -> bool {
        authority.iter().all(|p| {
            let id = self.registry.resource_at(&p.resource).unwrap().id.clone();
            let known = self.known_tools.get(&id).and_then(|tools| tools.get(p.tool().unwrap()));
            p.digest == known.and_then(|known| known.accepted.clone())
        })
    }

    pub(super) fn is_disabled(&self, id: &str) -> bool {
        self.registry.client(&id.parse().unwrap()).unwrap().is_disabled()
    }
}
