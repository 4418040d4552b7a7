//! The pump over in-memory pipes, its clock stopped: hours pass in no time.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::proxy::ledger::{Kind, Ledger, Opening};
use crate::proxy::pool::Backend;
use crate::runtime::clock;

const PATIENCE: Duration = Duration::from_secs(25);
const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

struct Bench {
    client: DuplexStream,
    backend: DuplexStream,
    ledger: Arc<Ledger>,
    end: JoinHandle<End>,
}

fn start(is_websocket: bool, room: usize, early_up: &[u8], early_down: &[u8]) -> Bench {
    let (client, ours) = duplex(room);
    let (theirs, backend) = duplex(room);
    let ledger = Arc::new(Ledger::new());
    let session = ledger.open(Opening {
        kind: Kind::Websocket,
        backend: Backend::of_test("p", "a", clock::now()),
        client: None,
        now: clock::now(),
    });
    let (ping_after, idle_timeout) = if is_websocket { (Some(PATIENCE), 60 * PATIENCE) } else { (None, PATIENCE) };
    let mut pump = Pump::new((ours, theirs), ping_after, idle_timeout, session);
    let mut to_client = HEAD.to_vec();
    to_client.extend_from_slice(early_down);
    pump.begin(early_up, &to_client, HEAD.len());
    Bench { client, backend, ledger, end: tokio::spawn(pump) }
}

fn text(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x81, payload.len() as u8];
    out.extend_from_slice(payload);
    out
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 8, 9, 10];
    let mut out = vec![first, 0x80 | payload.len() as u8];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

async fn expect(from: &mut DuplexStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    timeout(Duration::from_secs(5), from.read_exact(&mut got)).await.expect("in time").expect("bytes");
    assert_eq!(got, bytes);
}

async fn ended(end: JoinHandle<End>) -> End {
    timeout(Duration::from_secs(3600), end).await.expect("ends").expect("no panic")
}

#[tokio::test(start_paused = true)]
async fn early_bytes_arrive_before_later_ones() {
    let mut b = start(true, 4096, &masked(0x81, b"early"), &text(b"first"));
    expect(&mut b.client, HEAD).await;
    expect(&mut b.client, &text(b"first")).await;
    expect(&mut b.backend, &masked(0x81, b"early")).await;
    b.client.write_all(&masked(0x81, b"late")).await.unwrap();
    expect(&mut b.backend, &masked(0x81, b"late")).await;
    assert_eq!(b.ledger.rows()[0].bytes_in, 21);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_lives_for_hours_and_the_backend_hears_nothing_of_it() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    for count in 1..=600_u32 {
        let mut ping = [0; 10];
        b.client.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, frames::ping(frames::PROXY, count));
        b.client.write_all(&masked(0x8a, &ping[2..])).await.unwrap();
    }
    b.client.write_all(&masked(0x81, b"still here")).await.unwrap();
    expect(&mut b.backend, &masked(0x81, b"still here")).await;
    assert!(!b.end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn two_unanswered_pings_end_it_without_a_close_frame() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    let begun = tokio::time::Instant::now();
    let mut rest = Vec::new();
    b.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [frames::ping(frames::PROXY, 1), frames::ping(frames::PROXY, 2)].concat());
    assert_eq!(ended(b.end).await.cause, EndCause::PingTimeout);
    assert_eq!(begun.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn a_busy_backend_does_not_make_its_client_look_dead() {
    let mut b = start(true, 64, b"", b"");
    expect(&mut b.client, HEAD).await;
    // More than the backend takes: the client's answers to pings cannot be read behind it.
    let message = masked(0x81, &[b'x'; 120]);
    let sent = message.clone();
    let (mut client, mut hears) = (tokio::io::split(b.client).1, b.backend);
    let sender = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client
    });
    sleep(10 * PATIENCE).await;
    assert!(!b.end.is_finished(), "ten minutes of computing are no reason to leave");
    expect(&mut hears, &message).await;
    drop(sender.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_was_not_asked_did_not_fail_to_answer() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    let frame = text(b"takes its time");
    b.backend.write_all(&frame[..4]).await.unwrap();
    expect(&mut b.client, &frame[..4]).await;
    sleep(20 * PATIENCE).await;
    assert!(!b.end.is_finished(), "within a frame nobody can be pinged");
    b.backend.write_all(&frame[4..]).await.unwrap();
    expect(&mut b.client, &frame[4..]).await;
    expect(&mut b.client, &frames::ping(frames::PROXY, 1)).await;
    assert_eq!(ended(b.end).await.cause, EndCause::PingTimeout);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pinged_ends_once_both_sides_have_been_silent_for_long() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    // No frames: a Close frame in fragments.
    b.backend.write_all(&[0x08, 0x02]).await.unwrap();
    expect(&mut b.client, &[0x08, 0x02]).await;
    sleep(50 * PATIENCE).await;
    b.client.write_all(b"noise").await.unwrap();
    expect(&mut b.backend, b"noise").await;
    sleep(50 * PATIENCE).await;
    assert!(!b.end.is_finished(), "somebody spoke");
    assert_eq!(ended(b.end).await.cause, EndCause::Idle);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_never_takes_anything_again_ends_it_after_long() {
    let mut b = start(true, 64, b"", b"");
    expect(&mut b.client, HEAD).await;
    let mut client = tokio::io::split(b.client).1;
    let sender = tokio::spawn(async move { client.write_all(&masked(0x81, &[b'x'; 120])).await });
    sleep(55 * PATIENCE).await;
    assert!(!b.end.is_finished(), "a busy one may yet");
    assert_eq!(ended(b.end).await.cause, EndCause::Idle);
    drop((sender.await, b.backend));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_a_frame_is_lost_as_one_that_answers_no_ping() {
    let mut b = start(true, 64, b"", b"");
    expect(&mut b.client, HEAD).await;
    let begun = tokio::time::Instant::now();
    let frame = text(&[b'x'; 120]);
    let (first, rest) = frame.split_at(100);
    let mut backend = b.backend;
    backend.write_all(first).await.unwrap();
    assert_eq!(ended(b.end).await.cause, EndCause::PingTimeout);
    assert_eq!(begun.elapsed().as_secs(), 75);
    assert!(backend.write_all(rest).await.is_err());

    // One that takes some of it now and then is not.
    let mut b = start(true, 64, b"", b"");
    expect(&mut b.client, HEAD).await;
    b.backend.write_all(first).await.unwrap();
    for byte in &first[..30] {
        sleep(2 * PATIENCE).await;
        expect(&mut b.client, &[*byte]).await;
    }
    assert!(!b.end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_last_word_is_heard_although_nothing_can_be_said_any_more() {
    let mut b = start(true, 64, b"", b"");
    expect(&mut b.client, HEAD).await;
    // Close 1000, and gone; the client is just saying something.
    b.backend.write_all(&[0x88, 0x02, 0x03, 0xe8]).await.unwrap();
    drop(b.backend);
    b.client.write_all(&masked(0x81, b"hello")).await.unwrap();
    let mut rest = Vec::new();
    b.client.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0x88, 0x02, 0x03, 0xe8]);
    let end = ended(b.end).await;
    assert_eq!((end.cause, end.close_code), (EndCause::UpstreamClosed, Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_ping_waits_for_the_end_of_the_frame_it_would_break() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    let frame = text(b"halves");
    b.backend.write_all(&frame[..4]).await.unwrap();
    expect(&mut b.client, &frame[..4]).await;
    sleep(PATIENCE + Duration::from_secs(1)).await;
    b.backend.write_all(&frame[4..]).await.unwrap();
    b.backend.write_all(&text(b"next")).await.unwrap();
    expect(&mut b.client, &frame[4..]).await;
    expect(&mut b.client, &frames::ping(frames::PROXY, 1)).await;
    expect(&mut b.client, &text(b"next")).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_dies_ends_the_client_without_a_close_frame() {
    let mut b = start(true, 4096, b"", &text(b"last words"));
    drop(b.backend);
    let mut all = Vec::new();
    b.client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [HEAD, &text(b"last words")].concat());
    let end = ended(b.end).await;
    assert_eq!((end.cause, end.close_code), (EndCause::UpstreamLost, None));
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_makes_an_end_in_order_whoever_sends_it() {
    let mut b = start(true, 4096, b"", b"");
    b.client.write_all(&masked(0x88, &[0x03, 0xe9])).await.unwrap();
    expect(&mut b.backend, &masked(0x88, &[0x03, 0xe9])).await;
    drop(b.backend);
    let end = ended(b.end).await;
    assert_eq!((end.cause, end.close_code), (EndCause::ClientClosed, Some(1001)));

    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    b.backend.write_all(&[0x88, 2, 0x03, 0xe8]).await.unwrap();
    expect(&mut b.client, &[0x88, 2, 0x03, 0xe8]).await;
    // The browser never answers: the farewell is bounded.
    let end = ended(b.end).await;
    assert_eq!((end.cause, end.close_code), (EndCause::UpstreamClosed, Some(1000)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_is_lost() {
    let b = start(true, 4096, b"", b"");
    drop(b.client);
    assert_eq!(ended(b.end).await.cause, EndCause::ClientLost);
    assert!(b.ledger.is_empty());
}

#[tokio::test(start_paused = true)]
async fn other_upgrades_may_be_half_closed_and_end_when_idle() {
    let mut b = start(false, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    b.client.write_all(b"all I have").await.unwrap();
    b.client.shutdown().await.unwrap();
    let mut got = Vec::new();
    b.backend.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"all I have");
    advance(Duration::from_secs(10)).await;
    b.backend.write_all(b"thanks").await.unwrap();
    expect(&mut b.client, b"thanks").await;
    assert!(!b.end.is_finished());
    assert_eq!(ended(b.end).await.cause, EndCause::ClientClosed);

    let b = start(false, 4096, b"", b"");
    assert_eq!(ended(b.end).await.cause, EndCause::Idle);
}

#[tokio::test(start_paused = true)]
async fn who_is_told_to_end_ends() {
    let mut b = start(true, 4096, b"", b"");
    expect(&mut b.client, HEAD).await;
    assert_eq!(b.ledger.end_backend("p", "a", EndCause::Drained), 1);
    assert_eq!(ended(b.end).await.cause, EndCause::Drained);
}

#[tokio::test]
async fn eight_mebibytes_pass_each_way_through_a_narrow_pipe() {
    let b = start(false, 1500, b"", b"");
    let data: Vec<u8> = (0..8_u32 << 20).map(|n| ((n * 7) >> 3) as u8).collect();
    let (mut client_r, mut client_w) = tokio::io::split(b.client);
    let (mut backend_r, mut backend_w) = tokio::io::split(b.backend);
    let (up, down) = (data.clone(), data.clone());
    let send_up = tokio::spawn(async move {
        client_w.write_all(&up).await.unwrap();
        client_w.shutdown().await.unwrap();
    });
    let send_down = tokio::spawn(async move {
        backend_w.write_all(&down).await.unwrap();
        backend_w.shutdown().await.unwrap();
    });
    let (mut at_backend, mut at_client) = (Vec::new(), Vec::new());
    let (r1, r2) = tokio::join!(backend_r.read_to_end(&mut at_backend), client_r.read_to_end(&mut at_client));
    r1.and(r2).unwrap();
    send_up.await.and(send_down.await).unwrap();
    assert!(at_backend == data && at_client[HEAD.len()..] == data);
    let end = ended(b.end).await;
    assert_eq!((end.bytes_in, end.bytes_out), (8 << 20, 8 << 20));
}

#[test]
fn an_idle_tunnel_is_small() {
    let size = size_of::<Pump<crate::proxy::stream::Stream, crate::proxy::stream::Stream>>();
    assert!(size <= 288, "{size} bytes");
    let size = size_of::<Watch>();
    assert!(size <= 112, "{size} bytes");
}
