package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"gatehouse/audit"
	"gatehouse/auth"
	"gatehouse/problem"
	"gatehouse/session"
	"gatehouse/session/handoff"
)

// The hand-off. An app host sends somebody who is not signed in to the login host, with the page that was asked for as `next`. Then:
//
//	login host   GET  login?next=…            signs in, or has a live session, and sends to the app host
//	app host     GET  handoff?next=…          gives the browser a nonce there, and sends back with the nonce's hash
//	login host   GET  login?next=…&nonce=…    makes a code for session, app host, nonce and next
//	app host     GET  handoff?code=…          redeems it, sets this host's cookies
//	app host     GET  handoff?next=…&bounced=…  sees the cookies come back, and sends to next; or shows the loop page
//
// The answer to a front proxy's question can set no cookie, so the nonce is not set before the login host has sent the browser here.
// Every redirect leads to a configured origin, and Lax cookies come along because all of it is one navigation.

// Hosts are the hosts of apps.
type Hosts interface {
	// Origin returns the origin of a host as it is configured, and false if there is no such host.
	Origin(host string) (string, bool)
}

// HandOff makes and redeems hand-off codes.
type HandOff interface {
	Create(ctx context.Context, h handoff.HandOff) (code string, err error)
	// Redeem uses a code up. It returns handoff.ErrNotGood for one that is not good at this host in this browser, and nothing happened.
	Redeem(ctx context.Context, code, origin, nonce string) (handoff.HandOff, error)
}

// Joiner gives a session cookies of another host. It returns session.ErrNoSession and session.ErrUnavailable.
type Joiner interface {
	Join(ctx context.Context, j session.Joining) (session.Principal, []*http.Cookie, error)
}

const (
	// checkWithin is how old a mark may be that says that cookies have just been set.
	checkWithin = time.Minute
	// loopWithin and maxBounces: whoever comes more often within that time to be handed over for the same page while signed in, goes in a
	// circle. A round has six redirects, and browsers give up after twenty.
	loopWithin = 20 * time.Second
	maxBounces = 1
)

// Names of fields in the addresses of a hand-off.
const (
	codeField    = "code"
	nonceField   = "nonce"
	bouncedField = "bounced" // seconds since 1970, in base 36
)

// OnHost serves what lies under Prefix on an app host, given by its origin as Hosts writes it.
func (e *Edge) OnHost(origin string) http.Handler {
	at := *e
	at.origin = origin
	return http.HandlerFunc(at.serveHost)
}

func (e *Edge) serveHost(w http.ResponseWriter, r *http.Request) {
	for _, route := range e.HostRoutes() {
		if route.Path == r.URL.Path {
			e.methods(route).ServeHTTP(w, r)
			return
		}
	}
	e.Problem(w, r, problem.New(problem.NotFound))
}

// HostRoutes is every path that an app host has. Login, set-up and account pages are not among them: what an app's script could reach
// there, it could read passwords with.
func (e *Edge) HostRoutes() []Route {
	return []Route{
		{Path: Prefix + "handoff", Get: e.handOff},
		{Path: Prefix + "renew", Get: e.renew},
		{Path: Prefix + "logout", Get: e.showLogout, Post: e.logoutForm, Limited: true},
		{Path: Prefix + "api/v1/logout", Post: e.logoutJSON, Limited: true},
		{Path: Prefix + "api/v1/session", Get: e.sessionJSON},
		{Path: Prefix + "assets/gatehouse.css", Get: e.styleSheet},
		{Path: Prefix + "assets/logo", Get: e.logo},
	}
}

// loginOrigin is the origin of the login host, and loginPage the address of its page.
func (e *Edge) loginOrigin() string { return e.External.Scheme + "://" + e.External.Host }
func (e *Edge) loginPage() string   { return e.loginOrigin() + Prefix + "login" }

// atLogin reports whether the host that is served is the login host.
func (e *Edge) atLogin() bool { return e.origin == e.loginOrigin() }

// signedInPage is where somebody is who is signed in and asked for nothing.
type signedInPage struct {
	frame
	Username string
}

// sendOn sends somebody who is signed in to a checked next: with a code where an app host has sent a nonce.
func (e *Edge) sendOn(w http.ResponseWriter, r *http.Request, p session.Principal, next string) {
	origin, path := e.split(next)
	nonce := r.URL.Query()[nonceField]
	switch {
	case origin == e.origin && path == "/" && e.NoApp:
		e.render(w, r, "signed-in", &signedInPage{frame: frame{Title: say("signed-in.title")}, Username: p.Name})
		return
	case origin == e.origin, len(nonce) != 1, !handoff.ValidHash(nonce[0]), p.Bearer: // a bearer token is good on every host as it is
		e.goTo(w, r, next)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	code, err := e.HandOff.Create(ctx, handoff.HandOff{UserID: p.UserID, SessionID: p.SessionID, Origin: origin, Browser: nonce[0], Next: path})
	if err != nil {
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	fields := []string{codeField, code}
	if mark := r.URL.Query().Get(bouncedField); e.bounced(mark) {
		fields = append(fields, bouncedField, mark)
	}
	redirect(w, r, origin+onward("handoff", path, fields...))
}

// noHandOff: on the login host there is nothing to hand over.
func (e *Edge) noHandOff(w http.ResponseWriter, r *http.Request) {
	redirect(w, r, e.origin+own("login", e.next(r, r.URL.Query()["next"])))
}

// handOff serves the three visits of a hand-off to an app host.
func (e *Edge) handOff(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	next := e.localNext(r)
	switch {
	case len(query[codeField]) == 1:
		e.redeem(w, r, query[codeField][0], next)
	case e.bounced(query.Get(bouncedField)):
		e.arrive(w, r, next)
	default:
		e.begin(w, r, next, false)
	}
}

// localNext is a next on the host that is served.
func (e *Edge) localNext(r *http.Request) string {
	next := e.next(r, r.URL.Query()["next"])
	if !strings.HasPrefix(next, "/") {
		e.countBypass(r, "foreign-redirect")
		return "/"
	}
	return next
}

// begin sends the browser to the login host with the hash of its nonce. failed: a code was not good, so that this is another try.
//
// A browser that has a nonce keeps it, so that tabs that are handed over at the same time do not take it from each other. A new one comes
// with each session (redeem), so that one which somebody planted is worth nothing behind it.
func (e *Edge) begin(w http.ResponseWriter, r *http.Request, next string, failed bool) {
	b, ok := readBrowser(r)
	if !ok {
		b = newBrowser("")
	}
	if _, _, err := e.principal(r); err == nil || failed { // signed in here, and yet sent here to be signed in
		times := e.bounces(b, next) + 1
		if times > maxBounces {
			b.challenge = ""
			http.SetCookie(w, b.cookie())
			why := "loop.circle"
			if failed {
				why = "loop.failed"
			}
			e.drawLoop(w, r, next, why)
			return
		}
		b.challenge = e.noteBounce(times, next)
	}
	http.SetCookie(w, b.cookie())
	fields := []string{nonceField, handoff.BrowserHash(b.nonce)}
	if failed { // where no cookie is kept, this is what is left of it
		fields = append(fields, bouncedField, e.mark())
	}
	redirect(w, r, e.loginOrigin()+onward("login", e.origin+next, fields...))
}

// bounces is how often the browser has come to be handed over for this page, just now.
func (e *Edge) bounces(b browserState, next string) int {
	parts := strings.Split(b.challenge, "-")
	if len(parts) != 3 || parts[2] != pageTag(next) {
		return 0
	}
	times, err := strconv.Atoi(parts[0])
	at, timeErr := strconv.ParseInt(parts[1], 36, 64)
	if err != nil || timeErr != nil || e.Now().Sub(time.Unix(at, 0)).Abs() > loopWithin {
		return 0
	}
	return times
}

// noteBounce is what the login cookie of an app host keeps of that: on an app host no login waits behind a challenge.
func (e *Edge) noteBounce(times int, next string) string {
	return strconv.Itoa(times) + "-" + e.mark() + "-" + pageTag(next)
}

func pageTag(next string) string {
	sum := sha256.Sum256([]byte(next))
	return hex.EncodeToString(sum[:4])
}

// mark is this moment, in an address or cookie.
func (e *Edge) mark() string { return strconv.FormatInt(e.Now().Unix(), 36) }

// bounced reports whether a mark says that cookies were set just now. An old one is an address that was kept, and means nothing.
func (e *Edge) bounced(mark string) bool {
	at, err := strconv.ParseInt(mark, 36, 64)
	return err == nil && e.Now().Sub(time.Unix(at, 0)).Abs() <= checkWithin
}

// redeem signs the browser in on this host with a code of its own. A code that is not good here changes nothing: the hand-off begins anew.
func (e *Edge) redeem(w http.ResponseWriter, r *http.Request, code, next string) {
	b, ok := readBrowser(r)
	switch { // the nonce that the code is for was set on the way here, or the code came here on another way
	case !ok && e.bounced(r.URL.Query().Get(bouncedField)):
		e.drawLoop(w, r, next, "loop.no-cookie")
		return
	case !ok:
		e.begin(w, r, next, true)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	h, err := e.HandOff.Redeem(ctx, code, e.origin, b.nonce)
	if errors.Is(err, handoff.ErrNotGood) {
		e.notGood(w, r, next)
		return
	}
	if err != nil {
		e.drawProblem(w, r, e.unavailable(r, err))
		return
	}
	v := e.Visitor(r)
	_, cookies, err := e.Joiner.Join(ctx, session.Joining{
		Principal: session.Principal{Identity: session.Identity{UserID: h.UserID}, SessionID: h.SessionID}, Origin: e.origin,
		FormerHandle: session.ReadHandle(r),
		Client:       audit.Client{Address: v.Address.String(), Network: v.Network.String(), Claimed: v.Claimed, UserAgent: r.UserAgent()},
	})
	switch {
	case noSession(err): // it ended meanwhile, most likely
		e.Logger.InfoContext(r.Context(), "hand-off without a session", "error", err, "request_id", v.RequestID)
		e.begin(w, r, h.Next, true)
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	default:
		setCookies(w, cookies)
		http.SetCookie(w, newBrowser(b.challenge).cookie())
		redirect(w, r, e.origin+onward("handoff", h.Next, bouncedField, e.mark()))
	}
}

// notGood answers a code that is not good: of an address that was kept or planted, or of a tab that another one was faster than.
func (e *Edge) notGood(w http.ResponseWriter, r *http.Request, next string) {
	if _, cookies, err := e.principal(r); err == nil {
		setCookies(w, cookies)
		redirect(w, r, e.origin+next)
		return
	}
	e.countBypass(r, "hand-off-code")
	e.begin(w, r, next, true)
}

// arrive lets the browser go on if the cookies that were just set came back, and says why not if they did not. So nobody is ever sent in a
// circle because of cookies that are not kept.
func (e *Edge) arrive(w http.ResponseWriter, r *http.Request, next string) {
	_, cookies, err := e.principal(r)
	switch {
	case err == nil:
		setCookies(w, cookies)
		redirect(w, r, e.origin+next)
	case noSession(err):
		e.drawLoop(w, r, next, "loop.no-cookie")
	default:
		e.drawProblem(w, r, e.unavailable(r, err))
	}
}

// renew gives the browser a new access token and handle, where a front proxy's question cannot: browsers that are signed in are sent here
// by forward-auth from time to time. Whoever is not signed in goes to the login page.
func (e *Edge) renew(w http.ResponseWriter, r *http.Request) {
	next := e.localNext(r)
	if e.bounced(r.URL.Query().Get(bouncedField)) {
		e.arrive(w, r, next)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), auth.StoreTimeout)
	defer cancel()
	_, cookies, err := e.Sessions.Renew(ctx, r, e.origin)
	switch {
	case noSession(err):
		if !e.atLogin() {
			next = e.origin + next
		}
		redirect(w, r, e.loginOrigin()+own("login", next))
	case err != nil:
		e.drawProblem(w, r, e.unavailable(r, err))
	default:
		setCookies(w, cookies)
		redirect(w, r, e.origin+onward("renew", next, bouncedField, e.mark()))
	}
}
