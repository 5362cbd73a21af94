// containerd-shim-runsc-v1 is gVisor's shim for containerd, for machines whose root lacks CAP_SYS_RESOURCE.
//
// gVisor's own gives up when the kernel does not let it protect the shim from being killed for want of memory. Here the
// shim gets one point more than its parent, as containerd's own shims do, which needs no privilege.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/runtime/v2/shim"
	"github.com/containerd/containerd/runtime/v2/task"
	"github.com/gogo/protobuf/types"
	runsc "gvisor.dev/gvisor/pkg/shim/v1"
)

const addressFile = "address"

// starter is gVisor's service, but for how its process is started.
type starter struct{ shim.Shim }

func main() {
	shim.Run("io.containerd.runsc.v1", create)
}

func create(ctx context.Context, id string, publisher shim.Publisher, stop func()) (shim.Shim, error) {
	service, err := runsc.New(ctx, id, publisher, stop)
	if err != nil {
		return nil, err
	}
	return starter{service}, nil
}

// StartShim starts the process that serves the task, and returns where it listens.
func (starter) StartShim(ctx context.Context, options shim.StartOpts) (string, error) {
	address, err := shim.SocketAddress(ctx, options.Address, options.ID)
	if err != nil {
		return "", err
	}
	socket, isServed, err := listen(address)
	if err != nil {
		return "", fmt.Errorf("shim's socket: %w", err)
	}
	if !isServed {
		if err := serve(ctx, socket, options); err != nil {
			return "", errors.Join(err, shim.RemoveSocket(address))
		}
	}
	return address, shim.WriteAddress(addressFile, address)
}

// Shutdown ends the process, which leaves no socket behind: each container has a shim of its own.
func (s starter) Shutdown(ctx context.Context, request *task.ShutdownRequest) (*types.Empty, error) {
	if address, err := shim.ReadAddress(addressFile); err == nil {
		if err := shim.RemoveSocket(address); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
	}
	return s.Shim.Shutdown(ctx, request)
}

// listen tells whether another shim serves the address already; a socket that nobody serves is replaced.
func listen(address string) (*os.File, bool, error) {
	listener, err := shim.NewSocket(address)
	if err != nil && shim.SocketEaddrinuse(err) {
		if shim.CanConnect(address) {
			return nil, true, nil
		}
		if err := shim.RemoveSocket(address); err != nil {
			return nil, false, err
		}
		listener, err = shim.NewSocket(address)
	}
	if err != nil {
		return nil, false, err
	}
	file, err := listener.File()
	return file, false, err
}

func serve(ctx context.Context, socket *os.File, options shim.StartOpts) error {
	defer socket.Close()
	namespace, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	process := exec.Command(
		self, "-namespace", namespace, "-address", options.Address, "-publish-binary", options.ContainerdBinary,
	)
	process.Env = append(os.Environ(), "GOMAXPROCS=2")
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	process.ExtraFiles = []*os.File{socket}
	if err := process.Start(); err != nil {
		return err
	}
	if err := shim.AdjustOOMScore(process.Process.Pid); err != nil {
		return errors.Join(fmt.Errorf("shim's place in the order of killing: %w", err), process.Process.Kill())
	}
	return shim.WritePidFile("shim.pid", process.Process.Pid)
}
