package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"gatehouse/admin"
	"gatehouse/audit"
	"gatehouse/problem"
)

// minToken is the length of the shortest token: 128 bits in base64 or more.
const minToken = 22

// Token is a bearer token that callers on TCP present. Only its hash is kept.
type Token struct {
	name string
	hash [sha256.Size]byte
}

// NewToken makes a Token of the text that callers send, under the name that the audit log shows. It refuses a text that is
// too short to be random, or that a header cannot carry.
func NewToken(name, text string) (Token, error) {
	if len(text) < minToken || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Token{}, fmt.Errorf("administration token %q must be at least %d printable ASCII characters, without spaces", name, minToken)
	}
	return Token{name: name, hash: sha256.Sum256([]byte(text))}, nil
}

// peerKey is where ConnContext puts the peer.
type peerKey struct{}

// peer is the process at the other end of a unix socket.
type peer struct {
	uid uint32
	err error // of asking the kernel
}

// ConnContext notes who is at the other end of a connection to the administration socket, as http.Server.ConnContext. The uid
// is that of the process that connected, and the kernel's word (SO_PEERCRED, unix(7)).
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peerUID(socket)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

// The errors of identify.
var (
	errNoToken   = errors.New("no valid token")
	errTwoTokens = errors.New("two Authorization lines")
	errForeign   = errors.New("peer is not an operator")
)

// identify sets the caller's role and name. On the socket the uid alone decides, whatever the request says.
func (a *API) identify(x *exchange) error {
	if p, socket := x.Context().Value(peerKey{}).(peer); socket {
		return a.identifyPeer(x, p)
	}
	lines := x.Header.Values("Authorization")
	if len(lines) > 1 {
		return errTwoTokens
	}
	if len(lines) == 0 {
		return errNoToken
	}
	scheme, text, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return errNoToken
	}
	token, found := a.token(text)
	if !found {
		return errNoToken
	}
	x.caller.Role = admin.Administrator
	x.caller.Actor = audit.Actor{Type: audit.ActorToken, ID: token.name}
	return nil
}

func (a *API) identifyPeer(x *exchange, p peer) error {
	if p.err != nil {
		return errors.Join(errForeign, p.err)
	}
	x.caller.Actor = audit.Actor{Type: audit.ActorOperator, ID: strconv.FormatUint(uint64(p.uid), 10)}
	if !slices.Contains(a.options.Operators, p.uid) {
		return errForeign
	}
	x.caller.Role = admin.Operator
	return nil
}

// token finds the token with the text. It compares hashes, all of them and in constant time, so that the time of an answer
// tells nothing about any of them.
func (a *API) token(text string) (Token, bool) {
	hash := sha256.Sum256([]byte(text))
	var match Token
	found := false
	for _, t := range a.options.Tokens {
		if subtle.ConstantTimeCompare(hash[:], t.hash[:]) == 1 {
			match, found = t, true
		}
	}
	return match, found
}

// unidentified answers somebody who may not ask at all.
func (a *API) unidentified(x *exchange, err error) {
	if x.caller.Actor.Type == "" {
		x.caller.Actor.Type = audit.ActorClient
	}
	switch {
	case errors.Is(err, errTwoTokens):
		x.refuse(problem.BadRequest, "There is more than one Authorization line.")
	case errors.Is(err, errForeign):
		x.refuse(problem.Forbidden, "The socket is for the gateway's own user and root.")
	default:
		x.w.Header().Set("WWW-Authenticate", `Bearer realm="gatehouse administration"`)
		x.refuse(problem.SessionRequired, "A valid administration token is required.")
	}
}
