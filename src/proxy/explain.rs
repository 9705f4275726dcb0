//! What would become of a request, and why? The same walk as `forward`, with a client that notes instead of sending.
//!
//! Every step is the very function that `forward` takes, so that the two cannot disagree. What a request takes of limits
//! and budgets is taken for the moment that the walk lasts, and given back; nothing is counted, told or entered.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::asked::{Manner, wants_stream};
use super::destination::{destination, nobody, onward};
use super::funds::{self, Taken, Wanted};
use super::instead::{Hops, Turned};
use super::{admit, model, own, whole};
use crate::admission::{Caller, MadeKeys, UnknownKey};
use crate::envelope::Envelope;
use crate::gateway::Gateway;
use crate::plan::Plan;
use crate::protocol::Endpoint;
use crate::rejection::Rejection;
use crate::route::{Route, Target};
use crate::telemetry::Record;
use crate::telemetry::decision::{Candidate, Decision, millis, usd};
use crate::upstream::rehearsal::{Rehearsal, Unsent};
use crate::upstream::{Call, Client, Presence, attempt};
use crate::usage::Money;

/// What somebody wants to know.
pub struct Question {
    /// The name of the key that would ask. None: whoever comes without one.
    pub key: Option<String>,
    /// What would be called.
    pub endpoint: Endpoint,
    /// With these headers, of which one must say that the body is JSON.
    pub headers: HeaderMap,
    /// And this body.
    pub body: Bytes,
}

/// The body of a request that is asked about: as it is written, but for the model that is named; or else a chat that says
/// hello. Fails with what is wrong with it.
pub fn body(model: Option<&str>, written: Option<&str>) -> Result<Bytes, String> {
    let quoted = model.map(|model| Value::from(model).to_string());
    match (written, quoted) {
        (None, None) => Err("name a `model`, or give a `body` that does".into()),
        (None, Some(model)) => {
            let hello = r#"[{"role":"user","content":"hello"}]"#;
            Ok(format!(r#"{{"model":{model},"messages":{hello}}}"#).into())
        }
        (Some(written), model) => {
            let body = Bytes::copy_from_slice(written.as_bytes());
            let Some(model) = model else {
                return Ok(body);
            };
            let envelope = Envelope::scan(body, |_| false);
            let envelope = envelope.map_err(|error| format!("`body`: {error}"))?;
            let mut edits = envelope.edit();
            edits.set("model", Bytes::from(model));
            Ok(edits.into_rope().to_vec().into())
        }
    }
}

/// What would become of a request. An object; its `rejected` says why it would not be sent.
pub async fn explain(gateway: &Gateway, question: &Question) -> Value {
    let mut found = Map::new();
    let telemetry = &gateway.state.telemetry;
    let mut record = telemetry.rehearse(Instant::now(), question.endpoint.name());
    found.insert("endpoint".into(), question.endpoint.name().into());
    let (plan, made) = (gateway.plan(), gateway.state.made.load_full());
    let rejected = match who(gateway, (&plan, &made), question.key.as_deref()) {
        Ok(caller) => {
            let walked = walk(gateway, &plan, caller, question, &mut found, &mut record);
            walked.await.err().map(|rejection| told(&rejection))
        }
        Err(why) => {
            let (status, code) = Rejection::from(UnknownKey::Missing).kind();
            Some(json!({ "status": status.as_u16(), "code": code, "message": why }))
        }
    };
    if let Some(rejected) = rejected {
        found.insert("rejected".into(), rejected);
    }
    Value::Object(found)
}

/// Why a client would be turned away, as it would hear it.
fn told(rejection: &Rejection) -> Value {
    let (status, code) = rejection.kind();
    json!({ "status": status.as_u16(), "code": code, "message": rejection.to_string() })
}

async fn walk(
    gateway: &Gateway,
    plan: &Plan,
    caller: &Caller,
    question: &Question,
    found: &mut Map<String, Value>,
    record: &mut Record,
) -> Result<(), Rejection> {
    found.insert("key".into(), (*caller.name).into());
    found.insert("team".into(), caller.team.as_deref().into());
    found.extend(own::standing(gateway, caller, record.began).await);
    let mut taken = admit(gateway, plan, caller, record)?;

    let manner = Manner::of(&question.headers);
    let writing = manner.writing(question.endpoint)?;
    let mut share = gateway.state.memory.share();
    let body = whole(plan, &mut share, Full::new(question.body.clone())).await?;
    let envelope = writing.read(body, |name| plan.acted_on.contains(name))?;
    let asked = model(&envelope)?;
    found.insert("model".into(), (*asked).into());
    let stream = wants_stream(question.endpoint, &envelope)?;
    found.insert("stream".into(), stream.into());
    let patience = manner.patience()?;

    let route = destination(plan, caller, &asked, question.endpoint)?;
    if route.targets.is_empty() {
        return Err(nobody(&route, &asked));
    }
    let ledger = &gateway.state.ledger;
    let route = onward(ledger, caller, (question.endpoint, &envelope), route)?;

    let deadline = patience.unwrap_or(route.deadline).min(route.deadline);
    found.insert("deadline_ms".into(), millis(deadline).into());
    let call = Call {
        endpoint: question.endpoint,
        envelope: &envelope,
        headers: &question.headers,
        stream,
        deadline: record.began + deadline,
        is_hurried: false,
        wall: &*gateway.wall,
        output_cap: plan.spending.output_cap,
        id: record.id,
        client_id: record.id.header(),
        caller: (&caller.name, caller.weight.max(1)),
    };
    let model = &Arc::clone(&route.meters.name);
    let wanted = Wanted {
        caller,
        manner: &manner,
        call: &call,
        model,
        route: &route,
    };
    let (models, outcome) = models(gateway, plan, wanted, &mut taken, record).await;
    found.insert("models".into(), models.into());
    outcome
}

/// Goes past the targets of a model, and of those that may be asked instead; and whether anything would come of it.
async fn models(
    gateway: &Gateway,
    plan: &Plan,
    wanted: Wanted<'_>,
    taken: &mut Taken,
    record: &mut Record,
) -> (Vec<Value>, Result<(), Rejection>) {
    let (rehearsal, presence) = (Rehearsal::default(), Presence::default());
    let (mut hops, mut models) = (Hops::default(), Vec::new());
    let client = Client::rehearsing(&rehearsal);
    let mut instead = None::<Arc<Route>>;
    loop {
        let route = instead.as_deref().unwrap_or(wanted.route);
        let asked = (plan, Wanted { route, ..wanted });
        let ran = one(gateway, asked, taken, &client, record).await;
        let decision = record.decided.as_mut().and_then(|it| it.all.pop());
        let unsent = rehearsal.take();
        // Nothing answers: all is well where something would have been sent, or waited for.
        let mut is_well = !unsent.is_empty();
        if let Some(decision) = decision {
            let held = ran.held.filter(|_| wanted.caller.has_budget);
            is_well |= decision.steps.iter().any(|step| step.awaited);
            models.push(json!({
                "model": decision.model,
                "strategy": decision.strategy,
                "held_usd": held.map(usd),
                "hedge": hedged(route, &decision),
                "skipped": route.skipped,
                "kept_at": route.keeper.as_deref(),
                "targets": targets(route, wanted.call, &decision, unsent),
            }));
        }
        match ran.turned.filter(|_| !is_well) {
            None => return (models, Ok(())),
            Some(turned) => match hops.next(plan, (route, wanted.call.endpoint), &presence, turned)
            {
                Ok(next) => instead = Some(next),
                Err(rejection) => return (models, Err(rejection)),
            },
        }
    }
}

/// When another target would be asked beside the first.
fn hedged(route: &Route, decision: &Decision) -> Option<Value> {
    let hedge = route.hedge.as_ref()?;
    let first = decision.steps.iter().find(|step| step.asked)?;
    let target = route.targets.iter().find(|it| *it.name == *first.target)?;
    Some(json!({
        "after_ms": hedge.late(target).map(millis),
        "at_most": f64::from(hedge.at_most) / 1e6,
    }))
}

/// What one model came to.
#[derive(Default)]
struct Ran {
    held: Option<Money>,
    turned: Option<Turned>,
}

/// Goes past one model's targets.
async fn one(
    gateway: &Gateway,
    (plan, wanted): (&Plan, Wanted<'_>),
    taken: &mut Taken,
    client: &Client,
    record: &mut Record,
) -> Ran {
    let mut tab = match funds::open(gateway, plan, wanted, taken, record).await {
        Ok(tab) => tab,
        Err(rejection) => {
            let turned = Some(rejection.into());
            return Ran {
                turned,
                ..Ran::default()
            };
        }
    };
    tab.rehearses();
    let ran = attempt::run(client, wanted.route, wanted.call, &mut tab, record).await;
    taken.charge = tab.hand_over();
    Ran {
        held: Some(tab.held()),
        turned: ran.err().map(Turned::from),
    }
}

/// Who would ask; or why nobody can, in words for an operator: a client hears less.
fn who<'k>(
    gateway: &Gateway,
    (plan, made): (&'k Plan, &'k MadeKeys),
    name: Option<&str>,
) -> Result<&'k Caller, String> {
    let Some(name) = name else {
        let anybody = plan.keyring.let_in(made);
        return anybody.ok_or_else(|| "callers without a key are not let in: name one".into());
    };
    let caller = plan.keyring.named(name, made);
    let caller = caller.ok_or_else(|| format!("there is no key `{name}`, or it is revoked"))?;
    match caller.expires {
        Some(expires) if expires <= (gateway.wall)() => {
            Err(format!("the key `{name}` has expired"))
        }
        _ => Ok(caller),
    }
}

/// Each target of a model: in the order in which they would be asked, then those that would not be.
fn targets(route: &Route, call: &Call<'_>, decision: &Decision, unsent: Vec<Unsent>) -> Vec<Value> {
    let mut unsent = unsent.into_iter();
    let mut all = Vec::new();
    let mut is_first = true;
    let find = |name: &str| {
        let known = decision.candidates().iter().find(|it| *it.target == *name);
        known.zip(route.targets.iter().find(|it| *it.name == *name))
    };
    for step in &decision.steps {
        let Some((candidate, target)) = find(&step.target) else {
            continue;
        };
        // Whatever is sent is noted, and nothing else is.
        let request = match step.asked {
            true => unsent.next(),
            false => None,
        };
        let verdict = match (&request, is_first) {
            (None, _) if step.awaited => "would be waited for, where nobody else can be asked",
            (None, _) => "would be passed over",
            (Some(_), true) => "would be asked",
            (Some(_), false) => "would be asked if those before it failed",
        };
        is_first &= request.is_none();
        let mut told = about(call, candidate, target);
        told.insert("verdict".into(), verdict.into());
        match request {
            Some(request) => told.insert("request".into(), as_sent(call.envelope, &request)),
            None => told.insert("why".into(), (*step.why).into()),
        };
        all.push(Value::Object(told));
    }
    let is_told = |it: &&Candidate| !decision.steps.iter().any(|step| step.target == it.target);
    for candidate in decision.candidates().iter().filter(is_told) {
        let Some((candidate, target)) = find(&candidate.target) else {
            continue;
        };
        let why = match &candidate.rests_because {
            Some(why) => format!("it {why}"),
            None => "as many are asked before it as are asked for one request".into(),
        };
        let mut told = about(call, candidate, target);
        told.insert("verdict".into(), "would be passed over".into());
        told.insert("why".into(), why.into());
        all.push(Value::Object(told));
    }
    all
}

/// What is known of a target, and holds for it.
fn about(call: &Call<'_>, candidate: &Candidate, target: &Target) -> Map<String, Value> {
    let mut told = match json!(candidate) {
        Value::Object(told) => told,
        _ => Map::new(),
    };
    let clocks = target.provider.timeouts;
    let prices = target.terms.price.as_ref().map(|price| &*price.version);
    told.insert("prices".into(), prices.into());
    let gate = target.gate.as_ref();
    let left = gate.map(|gate| {
        let left = gate.left(Instant::now()).into_iter();
        let left = left.map(|it| (it.what.name().to_owned(), it.left.into()));
        left.collect::<Map<String, Value>>()
    });
    told.insert("limits_left".into(), json!(left));
    let crowd = gate.map(|gate| gate.crowd());
    let crowd = crowd.filter(|crowd| crowd.limit.is_some()).map(|crowd| {
        json!({
            "under_way": crowd.held,
            "most": crowd.limit,
            "waiting": crowd.waiting,
            "wait_ms": crowd.wait.map(millis),
        })
    });
    told.insert("slots".into(), crowd.unwrap_or_default());
    told.insert(
        "clocks_ms".into(),
        json!({
            "connect": millis(clocks.connect),
            "first_byte": millis(clocks.first_byte),
            "first_content": millis(clocks.first_content),
            "idle": millis(clocks.idle),
            "total": millis(clocks.total),
            "keepalive": target.provider.keepalive.filter(|_| call.stream).map(millis),
        }),
    );
    told
}

/// Headers that hold secrets, whoever wrote them.
const SECRET: [HeaderName; 4] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
];

/// The request that a target would get, and how it differs from the client's.
fn as_sent(envelope: &Envelope, request: &Unsent) -> Value {
    let mut headers = Map::new();
    for (name, value) in &request.headers {
        let is_named_so = ["key", "secret", "token"];
        let is_secret = value.is_sensitive()
            || SECRET.contains(name)
            || is_named_so.iter().any(|it| name.as_str().contains(it));
        let value = match is_secret {
            true => "***".into(),
            false => String::from_utf8_lossy(value.as_bytes()),
        };
        headers.insert(name.as_str().into(), value.into());
    }
    json!({
        "method": request.method.as_str(),
        "url": request.url,
        "headers": headers,
        "changes": changes(envelope, &request.body),
        "body": String::from_utf8_lossy(&request.body),
    })
}

/// How a body differs from another, as a JSON Patch (RFC 6902) of members and elements.
fn changes(envelope: &Envelope, sent: &[u8]) -> Vec<Value> {
    let parsed = |text: &[u8]| serde_json::from_slice(text).unwrap_or_default();
    let mut patch = Vec::new();
    let text = envelope.edit().into_rope().to_vec();
    differ("", &parsed(&text), &parsed(sent), &mut patch);
    patch
}

fn differ(path: &str, old: &Value, new: &Value, patch: &mut Vec<Value>) {
    let below = |name: &str| {
        let name = name.replace('~', "~0").replace('/', "~1");
        format!("{path}/{name}")
    };
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                match new.get(name) {
                    Some(changed) => differ(&below(name), value, changed, patch),
                    None => patch.push(json!({ "op": "remove", "path": below(name) })),
                }
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                patch.push(json!({ "op": "add", "path": below(name), "value": value }));
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (n, (one, other)) in old.iter().zip(new).enumerate() {
                differ(&below(&n.to_string()), one, other, patch);
            }
        }
        _ => patch.push(json!({ "op": "replace", "path": path, "value": new })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_member_by_member() {
        let told = |old: Value, new: Value| {
            let mut patch = Vec::new();
            differ("", &old, &new, &mut patch);
            Value::from(patch)
        };
        let old = json!({"model": "fast", "n": 1, "a/b": [1, {"c": 2}], "same": {"x": null}});
        let new = json!({"model": "llama", "a/b": [1, {"c": 3}], "same": {"x": null}, "new": []});
        assert_eq!(
            told(old.clone(), new),
            json!([
                {"op": "replace", "path": "/a~1b/1/c", "value": 3},
                {"op": "replace", "path": "/model", "value": "llama"},
                {"op": "remove", "path": "/n"},
                {"op": "add", "path": "/new", "value": []},
            ])
        );
        assert_eq!(told(old.clone(), old), json!([]));
        assert_eq!(
            told(json!({"a": [1]}), json!({"a": [1, 2]})),
            json!([{"op": "replace", "path": "/a", "value": [1, 2]}])
        );
    }
}
