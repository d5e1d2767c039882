"""Answers to the guest's questions for names. Pure.

No question leaves this process, so none carries anything out. A name that may be reached has the
proxy's own address: where a connection goes is decided by the name that it asks for, when it does.
Every other name does not exist.
"""

from __future__ import annotations

from typing import Final

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from vmrunner.model import AllowList

#: Bytes of a question that is looked at.
QUESTION_BYTES: Final = 512
#: Seconds for which the guest may remember an answer.
TTL: Final = 60


def answer(question: bytes, allow: AllowList, address: str) -> bytes | None:
    """Return the answer to a question, as it goes over the wire; None: none is due to such bytes.
    `address`: where the proxy listens."""
    if len(question) > QUESTION_BYTES:
        return None
    try:
        query = dns.message.from_wire(question, ignore_trailing=False, raise_on_truncation=True)
        if query.flags & dns.flags.QR:
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(_answered(query, reply, allow, address))
        return reply.to_wire()
    except Exception:  # noqa: BLE001 - whatever a library makes of an attacker's bytes
        return None


def _answered(
    query: dns.message.Message, reply: dns.message.Message, allow: AllowList, address: str
) -> dns.rcode.Rcode:
    """Put the address in, where one is due. Returns the verdict."""
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return dns.rcode.NOTIMP
    wanted = query.question[0]
    if wanted.rdclass != dns.rdataclass.IN:
        return dns.rcode.REFUSED
    name = wanted.name.to_text(omit_final_dot=True).lower()
    if not allow.knows(name):
        return dns.rcode.NXDOMAIN
    if wanted.rdtype == dns.rdatatype.A:
        reply.answer.append(dns.rrset.from_text(wanted.name, TTL, "IN", "A", address))
    return dns.rcode.NOERROR
