//! Evaluation requests (AuthZEN Authorization API 1.0 §5.1, §6.1). Unknown members are ignored, and
//! an optional member that is `null` counts as absent.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    app::{EvaluationRequest, RequestError},
    domain::{
        authority::Arg,
        evaluation::{Arguments, BatchSemantic, MAX_EVALUATIONS, Question},
        secret::Secret,
        settings::MAX_EVALUATION_DEPTH,
    },
    http::extract::json::parse_exact_object,
};

/// The members of an object.
type Members = BTreeMap<String, Arg>;

/// A request to the batch endpoint.
pub(super) enum BatchRequest {
    /// One evaluation, as at the other endpoint.
    Single(EvaluationRequest),
    /// The evaluations, in order; an error for a malformed one.
    Batch(Vec<Result<EvaluationRequest, RequestError>>, BatchSemantic),
}

/// Parses the body of a single evaluation.
pub(super) fn parse_single(body: &[u8]) -> Result<EvaluationRequest, RequestError> {
    let mut body = parse_exact_object(body, MAX_EVALUATION_DEPTH)?;
    Entities::of(&mut body)?.request(None)
}

/// Parses the body of a batch. The members at the top are the defaults of each evaluation.
pub(super) fn parse_batch(body: &[u8]) -> Result<BatchRequest, RequestError> {
    let mut body = parse_exact_object(body, MAX_EVALUATION_DEPTH)?;
    let items = match body.remove("evaluations") {
        None | Some(Arg::Null) => Vec::new(),
        Some(Arg::List(items)) => items,
        Some(_) => return Err(malformed("`evaluations` must be an array")),
    };
    let semantic = batch_semantic(&body)?;
    let defaults = Entities::of(&mut body)?;
    if items.is_empty() {
        return defaults.request(None).map(BatchRequest::Single);
    }
    if items.len() > MAX_EVALUATIONS {
        return Err(malformed(&format!("`evaluations` has more than {MAX_EVALUATIONS} items; send several requests")));
    }
    let request = |item| match item {
        Arg::Object(mut members) => Entities::of(&mut members)?.request(Some(&defaults)),
        _ => Err(malformed("an item of `evaluations` must be an object")),
    };
    Ok(BatchRequest::Batch(items.into_iter().map(request).collect(), semantic))
}

fn batch_semantic(body: &Members) -> Result<BatchSemantic, RequestError> {
    let Some(options) = object(body, "options", "options")? else { return Ok(BatchSemantic::default()) };
    let place = "options.evaluations_semantic";
    let Some(word) = text(options, "evaluations_semantic", place)? else { return Ok(BatchSemantic::default()) };
    let names = BatchSemantic::ALL.map(BatchSemantic::as_str).join("`, `");
    BatchSemantic::parse(word).ok_or_else(|| malformed(&format!("`{place}` must be one of `{names}`")))
}

/// The entities of an evaluation, or the defaults of a batch.
struct Entities<'a> {
    subject: Option<&'a Members>,
    action: Option<&'a Members>,
    resource: Option<&'a Members>,
    context: Option<&'a Members>,
    /// The arguments in `resource`, or why they are malformed. Read once for all evaluations that
    /// share them.
    arguments: Result<Arc<Arguments>, RequestError>,
}

impl<'a> Entities<'a> {
    fn of(members: &'a mut Members) -> Result<Self, RequestError> {
        let arguments = take_arguments(members);
        Ok(Self {
            subject: object(members, "subject", "subject")?,
            action: object(members, "action", "action")?,
            resource: object(members, "resource", "resource")?,
            context: object(members, "context", "context")?,
            arguments,
        })
    }

    /// Returns the request that these entities state. An absent one is that of `defaults`. An
    /// entity of an evaluation replaces the default one, except for its required members.
    fn request(&self, defaults: Option<&Self>) -> Result<EvaluationRequest, RequestError> {
        let required = |of: fn(&Self) -> Option<&'a Members>, entity: &str, name: &str| {
            let (own, default) = (of(self), defaults.and_then(of));
            if own.or(default).is_none() {
                return Err(malformed(&format!("missing member `{entity}`")));
            }
            let place = format!("{entity}.{name}");
            for members in [own, default].into_iter().flatten() {
                if let Some(value) = text(members, name, &place)? {
                    return Ok(value.to_owned());
                }
            }
            Err(malformed(&format!("missing member `{place}`")))
        };
        required(|entities| entities.subject, "subject", "type")?;
        let default_context = defaults.and_then(|defaults| defaults.context);
        let in_context = |context: Option<&Members>, name: &str, place: &str| match context {
            Some(context) => text(context, name, place).map(|text| text.map(str::to_owned)),
            None => Ok(None),
        };
        let agent = match in_context(self.context, "agent", "context.agent")? {
            // The agent belongs to the token: a default token has the default agent.
            None if in_context(self.context, "token", "context.token")?.is_none() => {
                in_context(default_context, "agent", "context.agent")?
            }
            agent => agent,
        };
        let arguments = match (self.resource, defaults) {
            (None, Some(defaults)) => &defaults.arguments,
            _ => &self.arguments,
        };
        let question = Question {
            subject: required(|entities| entities.subject, "subject", "id")?,
            action: required(|entities| entities.action, "action", "name")?,
            resource_type: required(|entities| entities.resource, "resource", "type")?,
            resource_id: required(|entities| entities.resource, "resource", "id")?,
            agent,
            arguments: arguments.clone()?,
        };
        let token = required(|entities| entities.context, "context", "token")?;
        Ok(EvaluationRequest { token: Secret::new(token), question })
    }
}

/// Takes the arguments of a call out of its resource. A call without the member has no arguments.
fn take_arguments(members: &mut Members) -> Result<Arc<Arguments>, RequestError> {
    // A resource of another type is refused when it is read.
    let Some(Arg::Object(resource)) = members.get_mut("resource") else { return Ok(Arc::default()) };
    let properties = match resource.get_mut("properties") {
        None | Some(Arg::Null) => return Ok(Arc::default()),
        Some(Arg::Object(properties)) => properties,
        Some(_) => return Err(malformed("`resource.properties` must be an object")),
    };
    if properties.contains_key("arguments_digest") {
        // A decision without some of the arguments would hold for other calls too.
        return Err(malformed("`resource.properties.arguments_digest` is not supported; send all arguments"));
    }
    match properties.remove("arguments") {
        None => Ok(Arc::default()),
        Some(Arg::Object(arguments)) => Ok(Arc::new(Arguments::from(arguments))),
        Some(_) => Err(malformed("`resource.properties.arguments` must be an object")),
    }
}

/// Returns an optional member that must be an object.
fn object<'a>(members: &'a Members, name: &str, place: &str) -> Result<Option<&'a Members>, RequestError> {
    match members.get(name) {
        None | Some(Arg::Null) => Ok(None),
        Some(Arg::Object(object)) => Ok(Some(object)),
        Some(_) => Err(malformed(&format!("`{place}` must be an object"))),
    }
}

/// Returns an optional member that must be a string.
fn text<'a>(members: &'a Members, name: &str, place: &str) -> Result<Option<&'a str>, RequestError> {
    match members.get(name) {
        None | Some(Arg::Null) => Ok(None),
        Some(Arg::Text(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(&format!("`{place}` must be a string"))),
    }
}

fn malformed(text: &str) -> RequestError {
    RequestError::MalformedJson(text.to_owned())
}
