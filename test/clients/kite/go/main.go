// Hands gokiteconnect what a test says, line by line, and says what it hands its user.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	kiteconnect "github.com/zerodha/gokiteconnect/v4"
	"github.com/zerodha/gokiteconnect/v4/models"
	kiteticker "github.com/zerodha/gokiteconnect/v4/ticker"
)

type asked struct {
	Do           string   `json:"do"`
	Exchange     string   `json:"exchange"`
	I            []string `json:"i"`
	Token        any      `json:"token"`
	Start        string   `json:"start"`
	End          string   `json:"end"`
	Interval     string   `json:"interval"`
	Oi           bool     `json:"oi"`
	RequestToken string   `json:"request_token"`
	Tokens       []uint32 `json:"tokens"`
	Mode         string   `json:"mode"`
	Segment      string   `json:"segment"`
}

var saying sync.Mutex

func say(event map[string]any) {
	saying.Lock()
	defer saying.Unlock()
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(line, '\n'))
}

var ticker *kiteticker.Ticker

func listen(key, token, root string, a asked) {
	ticker = kiteticker.New(key, token)
	address, err := url.Parse(strings.Replace(root, "http", "ws", 1))
	if err != nil {
		panic(err)
	}
	ticker.SetRootURL(*address)
	ticker.SetReconnectMaxDelay(5 * time.Second)
	ticker.OnConnect(func() {
		if err := ticker.Subscribe(a.Tokens); err != nil {
			say(map[string]any{"event": "error", "reason": err.Error()})
		}
		if a.Mode != "" {
			if err := ticker.SetMode(kiteticker.Mode(a.Mode), a.Tokens); err != nil {
				say(map[string]any{"event": "error", "reason": err.Error()})
			}
		}
		say(map[string]any{"event": "connect"})
	})
	ticker.OnTick(func(tick models.Tick) { say(map[string]any{"event": "ticks", "ticks": []models.Tick{tick}}) })
	ticker.OnError(func(err error) { say(map[string]any{"event": "error", "reason": err.Error()}) })
	ticker.OnClose(func(code int, reason string) { say(map[string]any{"event": "close", "reason": reason}) })
	ticker.OnReconnect(func(attempt int, delay time.Duration) { say(map[string]any{"event": "reconnect"}) })
	go ticker.Serve()
}

func main() {
	key, token, root := os.Getenv("KITE_KEY"), os.Getenv("KITE_TOKEN"), os.Getenv("KITE_ROOT")
	kite := kiteconnect.New(key)
	kite.SetAccessToken(token)
	kite.SetBaseURI(root)
	do := func(a asked) (any, error) {
		switch a.Do {
		case "instruments":
			if a.Exchange != "" {
				return kite.GetInstrumentsByExchange(a.Exchange)
			}
			return kite.GetInstruments()
		case "quote":
			return kite.GetQuote(a.I...)
		case "ohlc":
			return kite.GetOHLC(a.I...)
		case "ltp":
			return kite.GetLTP(a.I...)
		case "historical":
			form := "2006-01-02 15:04:05"
			from, err := time.Parse(form, a.Start)
			if err != nil {
				return nil, err
			}
			to, err := time.Parse(form, a.End)
			if err != nil {
				return nil, err
			}
			return kite.GetHistoricalData(int(a.Token.(float64)), a.Interval, from, to, false, a.Oi)
		case "profile":
			return kite.GetUserProfile()
		case "margins":
			return kite.GetUserMargins()
		case "orders":
			return kite.GetOrders()
		case "positions":
			return kite.GetPositions()
		case "order":
			return kite.PlaceOrder("regular", kiteconnect.OrderParams{
				Exchange: "NSE", Tradingsymbol: "INFY", TransactionType: "BUY", Quantity: 1, Product: "CNC", OrderType: "MARKET",
			})
		case "session":
			return kite.GenerateSession(a.RequestToken, "secret")
		case "logout":
			return kite.InvalidateAccessToken()
		case "as":
			kite.SetAccessToken(a.Token.(string))
			return nil, nil
		case "segment":
			return kite.GetUserSegmentMargins(a.Segment)
		case "listen":
			listen(key, token, root, a)
			return nil, nil
		case "subscribe":
			return nil, ticker.Subscribe(a.Tokens)
		case "unsubscribe":
			return nil, ticker.Unsubscribe(a.Tokens)
		case "mode":
			return nil, ticker.SetMode(kiteticker.Mode(a.Mode), a.Tokens)
		}
		return nil, errors.New("unknown: " + a.Do)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var a asked
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			panic(err)
		}
		result, err := do(a)
		var failed kiteconnect.Error
		if errors.As(err, &failed) {
			say(map[string]any{"failed": failed.ErrorType, "message": failed.Message, "code": failed.Code})
		} else if err != nil {
			say(map[string]any{"failed": "Go", "message": err.Error()})
		} else {
			say(map[string]any{"result": result})
		}
	}
}
