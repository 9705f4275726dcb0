//! tollgate, a routing gateway for language models. This page is its architecture.
//!
//! Programs call it as if it were OpenAI. It maps a model's name to targets at many providers, splices the request into
//! each one's dialect without rebuilding it, retries, falls back, streams the bytes through and counts every token.
//!
//! # Tenets, in order; an earlier one wins
//!
//! 1. **Correct accounting.** 2. **Transparent bytes.** 3. **Simple to read.** 4. **Fast.** 5. **Many features.**
//!
//! # The path of one request
//!
//! Read [`proxy`] first: one function walks through the rooms, and nothing else knows them all.
//!
//! 1. [`server`] accepts the connection and hands it to a worker, a thread with a runtime of its own, which shakes hands
//!    where TLS is spoken ([`server::Tls`]) and hears whether it is HTTP/1.1 or HTTP/2.
//! 2. [`proxy::handle`] opens a [`telemetry::Record`] and asks [`protocol::Endpoint`] what was called; the current
//!    [`plan::Plan`] is taken once.
//! 3. [`admission`] says whether we were called by a name of ours and from a page that may, who asks, and whether there
//!    is room below the limits: a [`admission::Permit`] goes as far as the answer does, a [`admission::limits::Charge`] is what
//!    the request takes of them. 4. [`envelope`] reads the body once, JSON or a form, and notes where each
//!    member lies. 5. The plan turns the model's name into a [`route::Route`], if the model is for what is asked, and of
//!    that only what may answer: what goes on from a response goes to who keeps it, as the ledger knows; its tokens are
//!    charged, and the most that it may cost at its targets is set aside in a [`ledger::Hold`]. Whoever asks a provider has both: an [`upstream::Tab`] is not made
//!    without them, and a charge is had by nobody but who was let in.
//! 6. [`upstream::attempt`] goes from target to target, in the order of the model's [`route::Strategy`] (a [`route::Walk`]), past
//!    those that rest after failures ([`route::health`]), and as often as the model's [`route::Allowance`] has it. Where all
//!    have what they can do it waits in line for one; where one takes too long it may ask another beside it, with a tab of
//!    its own. The [`provider`]'s rules splice the body, the client sends it, over the way that was decided when the plan was
//!    compiled, and what comes back is judged. A short answer is held whole, a stream up to its first content, sound not at all,
//!    so that what is no answer moves on to the next try. What each endpoint is written as and answered with is one table in
//!    [`protocol`]. What a model's targets cannot take another model may, where the operator says so: then money is set aside
//!    for that, and it is asked.
//! 7. [`response`] gives the answer back piece by piece, while a [`protocol::Decoder`] picks out usage and the end. What it
//!    cost is durable in the [`ledger`] before its last bytes go. Its body holds the guards: whatever ends it gives
//!    everything back. What a client has left may be read on, by a bounded finisher, for its usage. One that has heard nothing
//!    of its stream for too long gets the status and comments, while 6 goes on inside of the body ([`response::Alive`]). How
//!    an answer ended is told to the health of its target.
//!
//! [`proxy::explain`] takes the same steps with a client that notes instead of sending, so that what it tells is what would
//! happen. Another configuration is read by a thread of [`cli`]'s, when something else stands in the files or somebody asks for it;
//! [`gateway::Gateway::apply`] swaps the plan, [`server::Listeners`] are exchanged, and requests under way keep what they began
//! with. What happened to a request is told when its record ends: to metrics, to the log, and in spans to a collector
//! ([`telemetry::trace`]), which nobody waits for. What was known when it was decided is a [`telemetry::decision::Decision`],
//! noted for whoever wants it.
//!
//! A response that its provider stores is asked for without a model: the ledger knows who made it, and it is shown, forgotten
//! or stopped there, whole and at once ([`upstream::StoredCall`]).
//!
//! A request with an `Idempotency-Key` asks first whether it has a twin, and reads the record of that one's answer
//! ([`response::twins`]); the first of them takes the path above, and its answer is recorded on its way out.
//!
//! # Three kinds of data
//!
//! [`config::Config`] is what was written; [`plan::Plan`] what it means, immutable and swapped whole;
//! [`plan::State`] what has happened, which outlives every plan. No type is two of these.
//!
//! # Invariants
//!
//! * A request sees one plan, from start to end. A room knows neither the configuration nor the gateway.
//! * Bytes that no edit names reach the provider as the client sent them; bytes of an answer reach the client as the
//!   provider sent them, except a usage event that the client did not ask for, and what follows a stream's last
//!   complete event when the stream breaks off. Comments may stand between its events.
//! * After the first content to the client there is no retry, nor once a stream is passed on without any (`prelude`). An
//!   answer never ends in a way the provider did not end it: what breaks off ends with an error, in-band, or by breaking
//!   the connection.
//! * Whatever is taken is given back, at the latest by `Drop`. A client that leaves cancels its upstream request at
//!   once, unless the provider is to be read on, or a retry may come for the answer; shutdown waits for that.
//! * What we read and what the provider reads are the same: ambiguous bodies are rejected.
//! * A try begins only if what is held covers it; each billed try is one entry, however it ended. Money is integers.
//! * Who is refused, for whatever reason, has consumed nothing of any limit or budget.
//! * Everything has a limit, named in one place. No panic on the path, and no lock held across an `await`.
//! * A secret shows itself only where credentials are written. Nothing a client writes becomes a label.
//! * No word of a prompt or an answer is logged, but of a key that the configuration names for that; and no request waits
//!   for a log.
//! * Decisions take `now` as an argument; only timers that are awaited look at the clock themselves.
//!
//! # Words
//!
//! A *key* is what a caller shows. A *model* is a name clients use; a *target* is `provider/model` as the provider
//! calls it. A *try* is one request to one target; an *attempt* is the whole loop. A *failure* is a try's; a
//! *rejection* is ours.
//!
//! # The rooms
//!
//! In the order a request enters them, which is also who may know whom: a room knows rooms above it only
//! (`tests/architecture.rs` has the table). Four bands: words, rooms, the house, doors.

// Words.
pub mod config;
pub mod usage;
pub mod envelope;
pub mod pieces;
// Rooms.
pub mod telemetry;
pub mod ledger;
pub mod admission;
pub mod protocol;
pub mod provider;
pub mod route;
pub mod upstream;
pub mod response;
// The house.
pub mod plan;
pub mod rejection;
pub mod gateway;
pub mod proxy;
// Doors.
pub mod server;
pub mod admin;
pub mod cli;
