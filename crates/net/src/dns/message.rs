//! From a packet to a reply. No I/O; every packet is taken for hostile.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::directory::Names;
use super::zone::Answer;

/// Seconds that others may remember our answers. Instances come and go.
const TTL: u32 = 5;
/// Size of a message's header.
pub const HEADER: usize = 12;
/// The largest UDP reply to those who did not say they take more.
const UDP_PLAIN: usize = 512;
/// The largest UDP packet we send or claim to take: it passes every network unfragmented.
pub const UDP_MAX: u16 = 1232;

/// What to do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer with this.
    Reply(Vec<u8>),
    /// Ask the host's resolvers.
    Forward,
    /// Say nothing: it is no question.
    Ignore,
}

/// Decides about one packet. `udp` bounds the reply's size.
pub fn handle(names: &dyn Names, packet: &[u8], udp: bool) -> Verdict {
    if packet.len() < HEADER || is_response(packet) {
        return Verdict::Ignore;
    }
    let Ok(request) = Message::from_vec(packet) else {
        return reply(&blank(packet, ResponseCode::FormErr), usize::MAX);
    };
    let room = match &request.edns {
        _ if !udp => usize::from(u16::MAX),
        Some(edns) => usize::from(edns.max_payload().clamp(UDP_PLAIN as u16, UDP_MAX)),
        None => UDP_PLAIN,
    };
    match answer(names, &request) {
        Some(response) => reply(&response, room),
        None => Verdict::Forward,
    }
}

/// A failure for a packet that is a question: no resolver of the host answered.
pub fn server_failure(packet: &[u8]) -> Option<Vec<u8>> {
    let mut response = blank(packet, ResponseCode::ServFail);
    if let Ok(request) = Message::from_vec(packet) {
        response.add_queries(request.queries);
    }
    response.to_vec().ok()
}

/// A whole reply cut down to "ask again over TCP".
pub fn truncated(reply: &[u8]) -> Option<Vec<u8>> {
    Message::from_vec(reply).ok()?.truncate().to_vec().ok()
}

/// The largest reply that the asker takes over UDP.
pub fn udp_room(packet: &[u8]) -> usize {
    let asked = Message::from_vec(packet).ok().and_then(|m| m.edns);
    asked.map_or(UDP_PLAIN, |e| usize::from(e.max_payload().max(UDP_PLAIN as u16)))
}

/// The question of a packet as bytes, from the header on; none where it has not just one, whole and uncompressed.
pub fn question(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(4..6)? != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        let length = usize::from(*packet.get(end)?);
        end += 1;
        match length {
            0 => break,
            1..=63 => end += length,
            _ => return None,
        }
    }
    packet.get(HEADER..end + 4)
}

/// Whether the packet says it is a reply.
pub fn is_response(packet: &[u8]) -> bool {
    packet.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

fn answer(names: &dyn Names, request: &Message) -> Option<Message> {
    let refuse = |code| {
        let mut response = Message::error_msg(request.metadata.id, request.metadata.op_code, code);
        response.add_queries(request.queries.iter().cloned());
        Some(response)
    };
    if request.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else {
        return refuse(ResponseCode::FormErr);
    };
    if query.query_class() != DNSClass::IN {
        return refuse(ResponseCode::NotImp);
    }
    let (records, code) = match names.look_up(&text(query.name())) {
        Answer::Elsewhere => return None,
        Answer::Nothing => (Vec::new(), ResponseCode::NXDomain),
        Answer::Addresses(all) if wants(query.query_type(), RecordType::A) => {
            (addresses(query.name(), all), ResponseCode::NoError)
        }
        Answer::Name(name) if wants(query.query_type(), RecordType::PTR) => {
            (pointer(query.name(), &name), ResponseCode::NoError)
        }
        // The name exists, but not with this type.
        Answer::Addresses(_) | Answer::Name(_) => (Vec::new(), ResponseCode::NoError),
    };
    let mut response = Message::error_msg(request.metadata.id, OpCode::Query, code);
    response.metadata.authoritative = true;
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(query.clone());
    response.add_answers(records);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_MAX);
        response.set_edns(edns);
    }
    Some(response)
}

fn wants(asked: RecordType, has: RecordType) -> bool {
    asked == has || asked == RecordType::ANY
}

fn addresses(name: &Name, mut all: Vec<Ipv4Addr>) -> Vec<Record> {
    // Whoever takes the first one should not always get the same.
    let turn = rand::random_range(0..all.len().max(1));
    all.rotate_left(turn);
    let record = |ip| Record::from_rdata(name.clone(), TTL, RData::A(A(ip)));
    all.into_iter().map(record).collect()
}

fn pointer(name: &Name, target: &str) -> Vec<Record> {
    let target = Name::from_labels(target.split('.').map(str::as_bytes));
    let record = |t| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(t)));
    target.into_iter().map(record).collect()
}

/// A name without its final dot; bytes that are no text become a character no name has.
fn text(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
    labels.join(".")
}

fn blank(packet: &[u8], code: ResponseCode) -> Message {
    let id = packet.get(..2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    let mut response = Message::new(id, MessageType::Response, OpCode::Query);
    response.metadata.response_code = code;
    response.metadata.recursion_available = true;
    response
}

fn reply(response: &Message, room: usize) -> Verdict {
    let whole = response.to_vec().ok();
    let fits = match whole {
        Some(bytes) if bytes.len() > room => response.truncate().to_vec().ok(),
        other => other,
    };
    fits.map_or(Verdict::Ignore, Verdict::Reply)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use proptest::prelude::*;

    use super::*;
    use crate::Subnet;
    use crate::dns::zone::Zone;

    fn zone() -> Zone {
        let subnet = Subnet::parse("10.88.0.0/16").unwrap();
        let zone = Zone::new("front", subnet, subnet.first_host());
        zone.set("u1", &["web".into()], Ipv4Addr::new(10, 88, 0, 2));
        for i in 0..100 {
            zone.set(&format!("many{i}"), &["many".into()], Ipv4Addr::new(10, 88, 1, i));
        }
        zone
    }

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut m = Message::new(77, MessageType::Query, OpCode::Query);
        m.metadata.recursion_desired = true;
        m.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        m.to_vec().unwrap()
    }

    fn replied(verdict: Verdict) -> Message {
        match verdict {
            Verdict::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn known_names() {
        let r = replied(handle(&zone(), &ask("WEB.", RecordType::A), true));
        assert_eq!(r.metadata.id, 77);
        assert_eq!(r.metadata.message_type, MessageType::Response);
        assert_eq!(r.metadata.response_code, ResponseCode::NoError);
        assert_eq!(r.answers.len(), 1);
        assert_eq!(r.answers[0].data, RData::A(A(Ipv4Addr::new(10, 88, 0, 2))));

        let r = replied(handle(&zone(), &ask("web.", RecordType::AAAA), true));
        assert_eq!(r.metadata.response_code, ResponseCode::NoError);
        assert!(r.answers.is_empty());

        let r = replied(handle(&zone(), &ask("2.0.88.10.in-addr.arpa.", RecordType::PTR), true));
        assert_eq!(r.answers[0].data.to_string(), "web.front.biga.internal.");
    }

    #[test]
    fn unknown_names() {
        let r = replied(handle(&zone(), &ask("x.biga.internal.", RecordType::A), true));
        assert_eq!(r.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(
            handle(&zone(), &ask("example.org.", RecordType::A), true),
            Verdict::Forward
        );
        let failure = server_failure(&ask("example.org.", RecordType::A)).unwrap();
        let failure = Message::from_vec(&failure).unwrap();
        assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(failure.queries.len(), 1);
    }

    #[test]
    fn a_long_answer_is_cut_over_udp_only() {
        let r = replied(handle(&zone(), &ask("many.", RecordType::A), true));
        assert!(r.metadata.truncation && r.answers.is_empty());
        let r = replied(handle(&zone(), &ask("many.", RecordType::A), false));
        assert!(!r.metadata.truncation);
        assert_eq!(r.answers.len(), 100);
    }

    #[test]
    fn hostile_packets() {
        let zone = zone();
        assert_eq!(handle(&zone, &[], true), Verdict::Ignore);
        // A name that points to itself.
        let mut looped = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        assert_eq!(
            replied(handle(&zone, &looped, true)).metadata.response_code,
            ResponseCode::FormErr
        );
        assert_eq!(question(&looped), None);
        looped[2] |= 0x80;
        assert_eq!(handle(&zone, &looped, true), Verdict::Ignore);
        let whole = ask("web.", RecordType::A);
        for cut in HEADER..whole.len() {
            let r = replied(handle(&zone, &whole[..cut], true));
            assert_eq!(r.metadata.response_code, ResponseCode::FormErr, "{cut}");
        }
        assert_eq!(question(&whole), Some(&whole[HEADER..]));
        // Many questions promised.
        let mut many = whole.clone();
        many[4..6].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(
            replied(handle(&zone, &many, true)).metadata.response_code,
            ResponseCode::FormErr
        );
    }

    proptest! {
        #[test]
        fn never_panics(mut packet in prop::collection::vec(any::<u8>(), 0..600), udp: bool, plain: bool) {
            if plain && packet.len() > 12 {
                packet[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            let zone = zone();
            let _ = handle(&zone, &packet, udp);
            let _ = (question(&packet), udp_room(&packet), truncated(&packet), server_failure(&packet));
        }

        #[test]
        fn damaged_questions_never_panic(at in 0usize..40, with: u8) {
            let mut packet = ask("web.front.biga.internal.", RecordType::A);
            let at = at % packet.len();
            packet[at] = with;
            let _ = handle(&zone(), &packet, true);
        }
    }
}
