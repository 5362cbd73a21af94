// tiny is one static program: what a pod's sandbox runs, and just enough to look at a first pod from outside.
//
//	tiny pause            wait for a signal to end, reap what dies meanwhile
//	tiny say WORD…        print the words, then wait as pause does
//	tiny echo WORD…       print the words and end
//	tiny serve ADDRESS    answer each HTTP request with the host's name
//	tiny get URL          print the answer
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const patience = 5 * time.Second

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("say what to do: pause, say, echo, serve or get"))
	}
	rest := os.Args[2:]
	switch os.Args[1] {
	case "pause":
		pause()
	case "say":
		fmt.Println(strings.Join(rest, " "))
		pause()
	case "echo":
		fmt.Println(strings.Join(rest, " "))
	case "serve":
		serve(strings.Join(rest, ""))
	case "get":
		get(strings.Join(rest, ""))
	default:
		fail(fmt.Errorf("%s: unknown; there are pause, say, echo, serve and get", os.Args[1]))
	}
}

// pause is process 1 of a pod: orphans become its children, so it must reap them.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

func serve(address string) {
	name, err := os.Hostname()
	if err != nil {
		fail(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: patience}
	fail(server.ListenAndServe())
}

func get(url string) {
	client := &http.Client{Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tiny:", err)
	os.Exit(1)
}
