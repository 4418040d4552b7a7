//! One session, from its first connection to its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::parts::{Gathering, Sending, Whole};
use super::{Came, Named, PING_AFTER, Seat, Shared, Socket, UNANSWERED};
use crate::node::content::visitor::Visitor;
use crate::node::content::worker::Lease;
use crate::node::metrics::HoldEnd;
use crate::shiny::resume::{GIVEN_UP, Inbox, Outbox, Said, Word};

/// For last words, and for a browser to take the answer to them.
const FAREWELL: Duration = Duration::from_secs(5);
/// For an answer to the worker's last word.
const ANSWER: Duration = Duration::from_secs(1);
/// What a message that is kept takes beside its bytes.
const MESSAGE_BYTES: usize = 64;
/// Messages that are read in a row.
const TURNS: usize = 32;
/// Messages of an app's in which it may say how it calls the session, and bytes of one, and of the name.
const FIRST_MESSAGES: u32 = 4;
const FIRST_MAX: usize = 4_096;
const TOKEN_MAX: usize = 128;
/// When others have taken all the memory there is, it is looked for again after this.
const MEMORY_LOOK: Duration = Duration::from_millis(100);
/// What is owed of acknowledgements is said after this at the latest.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Tells a browser that its session is gone.
pub(super) async fn refuse(mut socket: Socket) {
    let _ = tokio::time::timeout(FAREWELL, async {
        socket.send(Message::text(Said::Gone.to_string())).await?;
        // Until it has read it and hangs up.
        poll_fn(|cx| Pin::new(&mut socket).poll_next(cx)).await.transpose()
    })
    .await;
}

/// Runs a session to its end.
pub(super) async fn run(
    shared: &Shared,
    id: &str,
    (browser, worker): (Socket, Socket),
    mut coming: mpsc::Receiver<Came>,
    timeout: Duration,
    (lease, seat, visitor, prefix): (Lease, Seat, Visitor, String),
) {
    let mut run = Run::new(shared, worker, lease, seat, prefix);
    let mut leaving = shared.leaving.subscribe();
    let mut turned_away: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(visitor.turned_away());
    let begun = Said::Begun(id, shared.hold.as_secs()).to_string();
    run.attach(browser, begun);
    loop {
        let until = run.until(timeout);
        let event = tokio::select! {
            biased;
            Some(came) = coming.recv() => Event::Came(Box::new(came)),
            _ = leaving.wait_for(|leaving| *leaving), if run.browser.is_none() => Event::Leaving,
            () = &mut turned_away => Event::TurnedAway,
            event = poll_fn(|cx| match run.poll(cx) {
                // Something is due sooner than the clock below knows.
                Poll::Pending if run.until(timeout) < until => Poll::Ready(Event::Look),
                polled => polled,
            }) => event,
            () = tokio::time::sleep_until(until) => Event::Time,
        };
        match event {
            Event::Look => {}
            Event::Came(came) => match run.outbox.rewind(came.has) {
                Ok(bytes) => {
                    turned_away = Box::pin(came.visitor.turned_away());
                    shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    shared.metrics.resumed(true);
                    let resumed = Said::Resumed(run.inbox.tell()).to_string();
                    run.attach(came.socket, resumed);
                }
                Err(why) => {
                    // One that was late, or is another's: who is there stays.
                    tracing::debug!(%why, "a browser comes back to another session than it had");
                    tokio::spawn(refuse(came.socket));
                }
            },
            Event::Leaving => {
                shared.metrics.hold_ended(HoldEnd::Leaving);
                return run.end_worker(closing(CloseCode::Away)).await;
            }
            Event::TurnedAway if run.is_over() => {
                run.end_browser(CloseCode::Policy).await;
                return run.end_worker(closing(CloseCode::Policy)).await;
            }
            // Who logged in anew, or has another password, comes back by a request that says so; others do not.
            Event::TurnedAway => {
                turned_away = Box::pin(std::future::pending());
                run.detach();
            }
            Event::BrowserLost if run.is_over() => return run.end_worker(closing(CloseCode::Away)).await,
            Event::BrowserLost => run.detach(),
            Event::BrowserClosed(code) => {
                let answered = run.answer_close();
                let _ = tokio::time::timeout(FAREWELL, answered).await;
                return run.end_worker(code).await;
            }
            Event::BrowserErred(code, why) => {
                tracing::debug!(why, "a browser's session is ended");
                run.end_browser(code).await;
                return run.end_worker(closing(CloseCode::Away)).await;
            }
            Event::WorkerEnded(ending) => {
                if run.browser.is_none() && matches!(ending, Ending::Gone) {
                    return shared.metrics.hold_ended(HoldEnd::Worker);
                }
                run.end_with(ending).await;
            }
            Event::Said => return,
            Event::Time => {
                let now = Instant::now();
                if run.farewell.is_some_and(|until| until <= now) {
                    return;
                }
                if run.worker.is_some() && run.deaf_until.is_some_and(|until| until <= now) {
                    run.end_with(Ending::Gone).await;
                    continue;
                }
                if run.browser.is_none() && run.since + shared.hold <= now {
                    shared.metrics.hold_ended(HoldEnd::Timeout);
                    return run.end_worker(closing(CloseCode::Away)).await;
                }
                if run.active + timeout <= now {
                    run.end_browser(CloseCode::Normal).await;
                    return run.end_worker(closing(CloseCode::Normal)).await;
                }
                if !run.pinged(now) && run.browser.is_some() {
                    if run.is_over() {
                        return run.end_worker(closing(CloseCode::Away)).await;
                    }
                    run.detach();
                }
            }
        }
    }
}

enum Event {
    /// Something may be due.
    Look,
    Came(Box<Came>),
    Leaving,
    /// They may not see it any more.
    TurnedAway,
    /// Without a Close frame.
    BrowserLost,
    BrowserClosed(Option<CloseFrame>),
    /// It says what it may not.
    BrowserErred(CloseCode, &'static str),
    WorkerEnded(Ending),
    /// All last words were said.
    Said,
    Time,
}

/// The worker's last word to the browser.
#[derive(Clone, Debug)]
enum Ending {
    Closed(Option<CloseFrame>),
    Gone,
}

struct Run<'a> {
    shared: &'a Shared,
    worker: Option<Socket>,
    lease: Option<Lease>,
    /// See [`super::Owner`].
    prefix: String,
    /// What the app calls it.
    named: Option<Named<'a>>,
    /// Messages of the worker's in which it may say so.
    is_new: u32,
    seat: Seat,
    browser: Option<Browser<'a>>,
    /// From the worker.
    outbox: Outbox<Message>,
    /// From the browser.
    inbox: Inbox,
    /// On its way to the worker.
    to_worker: Option<Whole<'a>>,
    /// What was written to the worker may not be on its way.
    is_worker_dirty: bool,
    /// The worker takes no more; what it still says is waited for until then.
    deaf_until: Option<Instant>,
    ending: Option<Ending>,
    /// The end is waited for until then.
    farewell: Option<Instant>,
    /// Somebody said something of the app's.
    active: Instant,
    /// The browser came, or went.
    since: Instant,
    /// Others have taken all the memory there is.
    is_starved: bool,
}

struct Browser<'a> {
    socket: Socket,
    hello: Option<Message>,
    owes_pong: bool,
    owes_ping: bool,
    /// Of messages that came.
    owes_count: bool,
    is_dirty: bool,
    unanswered: u32,
    heard: Instant,
    /// The worker's last word was written.
    is_told: bool,
    /// What came is acknowledged by then.
    tell_at: Option<Instant>,
    /// What is on its way to it.
    sending: Option<Sending>,
    parts: Gathering<'a>,
}

impl<'a> Run<'a> {
    fn new(shared: &'a Shared, worker: Socket, lease: Lease, seat: Seat, prefix: String) -> Self {
        let now = Instant::now();
        Self {
            shared,
            worker: Some(worker),
            lease: Some(lease),
            prefix,
            named: None,
            is_new: FIRST_MESSAGES,
            seat,
            browser: None,
            outbox: Outbox::new(),
            inbox: Inbox::default(),
            to_worker: None,
            is_worker_dirty: false,
            deaf_until: None,
            ending: None,
            farewell: None,
            active: now,
            since: now,
            is_starved: false,
        }
    }

    /// A browser is there; whoever was before is not any more.
    fn attach(&mut self, socket: Socket, hello: String) {
        self.detach();
        self.seat.turn(true);
        let now = Instant::now();
        self.since = now;
        self.browser = Some(Browser {
            socket,
            hello: Some(Message::text(hello)),
            owes_pong: false,
            owes_ping: false,
            owes_count: false,
            is_dirty: false,
            unanswered: 0,
            heard: now,
            is_told: false,
            tell_at: None,
            sending: None,
            parts: Gathering::new(&self.shared.bytes, self.shared.bytes_max),
        });
    }

    /// The browser is gone, and may come back.
    fn detach(&mut self) {
        if self.browser.take().is_some() {
            self.seat.turn(false);
            (self.since, self.farewell) = (Instant::now(), None);
        }
    }

    /// A browser that went is not waited for.
    fn is_over(&self) -> bool {
        self.shared.hold.is_zero() || *self.shared.leaving.borrow() || matches!(self.ending, Some(Ending::Gone))
    }

    /// The worker has said its last word.
    async fn end_with(&mut self, ending: Ending) {
        if let Some(worker) = &mut self.worker {
            // Its Close frame is answered.
            let _ = tokio::time::timeout(ANSWER, worker.flush()).await;
        }
        (self.worker, self.to_worker, self.lease, self.deaf_until) = (None, None, None, None);
        self.ending = Some(ending);
    }

    /// When to look again whatever happens.
    fn until(&self, timeout: Duration) -> Instant {
        let mut until = self.active + timeout;
        let mut by = |at: Instant| until = until.min(at);
        match &self.browser {
            Some(browser) => {
                by(browser.heard + PING_AFTER * (browser.unanswered + 1));
                browser.tell_at.map(&mut by);
            }
            None => by(self.since + self.shared.hold),
        }
        self.farewell.map(&mut by);
        self.deaf_until.map(&mut by);
        if self.is_starved || self.browser.as_ref().is_some_and(|browser| browser.parts.is_waiting()) {
            by(Instant::now() + MEMORY_LOOK);
        }
        until
    }

    /// Asks a silent browser whether it is there; `false`: it has not said so for too long.
    fn pinged(&mut self, now: Instant) -> bool {
        let Some(browser) = &mut self.browser else { return false };
        if browser.tell_at.is_some_and(|at| at <= now) {
            browser.tell_at = None;
        }
        if browser.heard + PING_AFTER * (browser.unanswered + 1) > now {
            return true;
        }
        if self.to_worker.is_some() || browser.parts.is_waiting() {
            // A busy worker takes nothing, or there is no room, so we read nothing: an answer may wait that we cannot see.
            (browser.heard, browser.unanswered) = (now, 0);
            return true;
        }
        if browser.unanswered >= UNANSWERED {
            return false;
        }
        browser.unanswered += 1;
        browser.owes_ping = true;
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        for _ in 0..TURNS {
            if self.deaf_until.is_none() && self.write_worker(cx).is_err() {
                // Its last words, and why it ends, may be there to be read.
                self.deaf_until = Some(Instant::now() + FAREWELL);
                self.to_worker = None;
            }
            let from_browser = self.read_browser(cx);
            if let Poll::Ready(Some(event)) = from_browser {
                return Poll::Ready(event);
            }
            let from_worker = self.read_worker(cx);
            if let Poll::Ready(Some(event)) = from_worker {
                return Poll::Ready(event);
            }
            match self.write_browser(cx) {
                Ok(false) => {}
                Ok(true) => return Poll::Ready(Event::Said),
                Err(_) => return Poll::Ready(Event::BrowserLost),
            }
            if from_browser.is_pending() && from_worker.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn write_worker(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let Some(worker) = &mut self.worker else { return Ok(()) };
        let mut worker = Pin::new(worker);
        if self.to_worker.is_some() {
            if worker.as_mut().poll_ready(cx)?.is_pending() {
                return Ok(());
            }
            if let Some((message, _counted)) = self.to_worker.take() {
                worker.as_mut().start_send(message)?;
                self.is_worker_dirty = true;
            }
        }
        if self.is_worker_dirty && worker.poll_flush(cx)?.is_ready() {
            self.is_worker_dirty = false;
        }
        Ok(())
    }

    /// Ready without an event: there may be more.
    fn read_browser(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(browser) = &mut self.browser else { return Poll::Pending };
        if self.to_worker.is_some() {
            return Poll::Pending;
        }
        match browser.parts.has_room(Instant::now()) {
            Ok(true) => {}
            Ok(false) => return Poll::Pending,
            Err((code, why)) => return Poll::Ready(Some(Event::BrowserErred(code, why))),
        }
        let message = match std::task::ready!(Pin::new(&mut browser.socket).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => {
                return Poll::Ready(Some(Event::BrowserErred(CloseCode::Size, "its message is too long")));
            }
            // Of a connection that broke, and of one that was never a websocket: it may come back.
            Some(Err(_)) | None => return Poll::Ready(Some(Event::BrowserLost)),
        };
        let now = Instant::now();
        (browser.heard, browser.unanswered, browser.owes_ping) = (now, 0, false);
        browser.is_dirty = true;
        let erred = |why| Poll::Ready(Some(Event::BrowserErred(CloseCode::Protocol, why)));
        let message = match message {
            Message::Text(text) => match Word::read(&text) {
                Some(Word::Message(rest)) => {
                    let bytes = text.len();
                    let rest = Bytes::from(text.clone()).slice(bytes - rest.len()..);
                    let Ok(rest) = rest.try_into() else { return erred("its text is none") };
                    Message::Text(rest)
                }
                Some(Word::Part) => {
                    browser.parts.expect_part();
                    return Poll::Ready(None);
                }
                Some(Word::Acknowledged(count)) => {
                    let Ok(bytes) = self.outbox.acknowledge(count) else {
                        return erred("it has what was not sent");
                    };
                    self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                Some(Word::Ping) => {
                    browser.owes_pong = true;
                    return Poll::Ready(None);
                }
                None => return erred("it says what means nothing"),
            },
            Message::Binary(bytes) => Message::Binary(bytes),
            Message::Close(frame) => {
                return Poll::Ready(Some(if self.ending.is_some() {
                    Event::Said
                } else {
                    match frame {
                        // It comes back by another connection.
                        Some(frame) if u16::from(frame.code) == GIVEN_UP => Event::BrowserLost,
                        frame => Event::BrowserClosed(frame),
                    }
                }));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Poll::Ready(None),
        };
        self.active = now;
        let (message, counted) = match browser.parts.add(message) {
            Ok(Some(whole)) => whole,
            Ok(None) => {
                browser.owes_count = true;
                return Poll::Ready(None);
            }
            Err((code, why)) => return Poll::Ready(Some(Event::BrowserErred(code, why))),
        };
        self.inbox.came(message.len() + 1);
        browser.tell_at.get_or_insert(now + TELL_AFTER);
        if self.worker.is_some() && self.deaf_until.is_none() {
            self.to_worker = Some((message, counted));
        }
        Poll::Ready(None)
    }

    /// Ready without an event: there may be more.
    fn read_worker(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let (own, all) = (self.outbox.bytes(), self.shared.bytes.load(Ordering::Relaxed));
        let fits = own < self.shared.session_bytes_max && all < self.shared.bytes_max;
        // A browser that takes what it gets is served whatever others do.
        let may_read = fits || own == 0 && self.browser.is_some();
        self.is_starved = !may_read && own < self.shared.session_bytes_max;
        let Some(worker) = self.worker.as_mut().filter(|_| may_read) else { return Poll::Pending };
        let message = match std::task::ready!(Pin::new(worker).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => {
                tracing::debug!("an app's message is too long");
                return Poll::Ready(Some(Event::WorkerEnded(Ending::Closed(closing(CloseCode::Size)))));
            }
            Some(Err(_)) | None => return Poll::Ready(Some(Event::WorkerEnded(Ending::Gone))),
        };
        self.is_worker_dirty = true;
        let message = match message {
            Message::Text(text) => {
                if self.is_new > 0 {
                    self.is_new -= 1;
                    self.name(&text);
                }
                let mut framed = String::with_capacity(text.len() + 1);
                framed.push('m');
                framed.push_str(&text);
                Message::text(framed)
            }
            Message::Binary(bytes) => Message::Binary(bytes),
            Message::Close(frame) => return Poll::Ready(Some(Event::WorkerEnded(Ending::Closed(frame)))),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Poll::Ready(None),
        };
        self.active = Instant::now();
        let bytes = message.len() + MESSAGE_BYTES;
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.outbox.push(message, bytes);
        Poll::Ready(None)
    }

    /// Among the first things an app says is how it calls the session.
    fn name(&mut self, text: &str) {
        /// Shiny's, of R and of Python.
        #[derive(serde::Deserialize)]
        struct First<'a> {
            #[serde(borrow)]
            config: Config<'a>,
        }
        #[derive(serde::Deserialize)]
        struct Config<'a> {
            #[serde(rename = "sessionId")]
            session_id: &'a str,
        }
        let Some(lease) = self.lease.as_ref().filter(|_| text.len() <= FIRST_MAX) else { return };
        let Ok(First { config: Config { session_id } }) = serde_json::from_str(text) else { return };
        if session_id.len() <= TOKEN_MAX {
            self.named = Some(Named::new(self.shared, &self.prefix, session_id, lease.id()));
            self.is_new = 0;
        }
    }

    /// Whether the worker's last word was said.
    fn write_browser(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let Some(browser) = &mut self.browser else { return Ok(false) };
        loop {
            let mut socket = Pin::new(&mut browser.socket);
            if socket.as_mut().poll_ready(cx)?.is_pending() {
                return Ok(false);
            }
            let message = if let Some(hello) = browser.hello.take() {
                hello
            } else if std::mem::take(&mut browser.owes_ping) {
                Message::Ping(Bytes::new())
            } else if std::mem::take(&mut browser.owes_pong) {
                Message::text(Said::Pong.to_string())
            } else if browser.owes_count || self.inbox.is_due() || browser.tell_at.is_none() && self.inbox.is_owed() {
                (browser.tell_at, browser.owes_count) = (None, false);
                Message::text(Said::Acknowledged(self.inbox.tell()).to_string())
            } else if let Some(frame) = browser.sending.as_mut().and_then(Sending::next) {
                frame
            } else if let Some(message) = self.outbox.send() {
                browser.sending = Some(Sending::new(message));
                continue;
            } else if let Some(ending) = self.ending.as_ref().filter(|_| !browser.is_told) {
                browser.is_told = true;
                self.farewell = Some(Instant::now() + FAREWELL);
                match ending {
                    Ending::Closed(frame) => Message::Close(frame.clone()),
                    Ending::Gone => Message::text(Said::Gone.to_string()),
                }
            } else {
                break;
            };
            socket.start_send(message)?;
            browser.is_dirty = true;
        }
        if browser.is_dirty && Pin::new(&mut browser.socket).poll_flush(cx)?.is_ready() {
            browser.is_dirty = false;
        }
        Ok(false)
    }

    /// Answers a Close frame with one.
    async fn answer_close(&mut self) {
        if let Some(browser) = &mut self.browser {
            let _ = browser.socket.flush().await;
        }
    }

    /// Tells the browser that it is over.
    async fn end_browser(&mut self, code: CloseCode) {
        let Some(browser) = &mut self.browser else { return };
        let _ = tokio::time::timeout(FAREWELL, browser.socket.close(closing(code))).await;
    }

    /// Tells the worker that it is over.
    async fn end_worker(&mut self, frame: Option<CloseFrame>) {
        let Some(worker) = &mut self.worker else { return };
        let last = self.to_worker.take();
        let _ = tokio::time::timeout(FAREWELL, async {
            if let Some((message, _counted)) = last {
                worker.send(message).await?;
            }
            worker.close(frame).await
        })
        .await;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.shared.bytes.fetch_sub(self.outbox.bytes(), Ordering::Relaxed);
    }
}

fn closing(code: CloseCode) -> Option<CloseFrame> {
    Some(CloseFrame { code, reason: "".into() })
}
