/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Host sides of serial lines and consoles. A backend lives in the VM's io_loop: its operations and callbacks run there.
 * Devices whose registers are handled by vCPU threads use struct char_port, which has the buffers and the hand-over.
 */
#ifndef DEVICES_CHAR_CHAR_H
#define DEVICES_CHAR_CHAR_H

#include <pthread.h>

#include "vmm/loop.h"
#include "vmm/object.h"

struct chardev;

struct chardev_client_ops {
	/* How many bytes can be taken now? */
	size_t (*can_receive)(void *client);
	/* At most what can_receive() said. */
	void (*receive)(void *client, const uint8_t *buf, size_t len);
	/* write() takes bytes again. */
	void (*writable)(void *client);
	/* The other end has come or gone. */
	void (*connected)(void *client, bool open);
	/*
	 * For a client that talks over a socket by itself (vhost-user): here is a connection, his to close, and nothing else is called until he
	 * has said chardev_hangup(). Such a client can take sockets only.
	 */
	void (*socket)(void *client, int fd);
};

struct chardev_ops {
	/* Bytes taken, possibly 0: then writable() follows. What no one listens to (a closed socket) is taken and lost. */
	size_t (*write)(struct chardev *chr, const uint8_t *buf, size_t len);
	/* The client can receive (again). */
	void (*accept_input)(struct chardev *chr);
	/*
	 * Of sockets: give the connection there is, if there is one already, to the client's socket(): -ENOTCONN if there is none and will be none; and: the client
	 * has ended it.
	 */
	int (*give_socket)(struct chardev *chr);
	void (*hangup)(struct chardev *chr);
};

/* What a backend wants of the process's terminal; the program sees to it (vmm/cli/terminal.h). */
enum chardev_terminal {
	CHARDEV_TERMINAL_NONE,
	CHARDEV_TERMINAL_RAW,	  /* every key is the guest's */
	CHARDEV_TERMINAL_SIGNALS, /* but those that raise signals, such as Ctrl-c */
};

/* First member of every backend. */
struct chardev {
	struct object obj;
	const struct chardev_ops *ops;
	enum chardev_terminal terminal;
	bool open; /* somebody is at the other end */
	const char *
		path; /* where the user finds the other end (a pty's name), or NULL; the backend's */
	const struct chardev_client_ops *client_ops;
	void *client;
};

/*
 * For backends, in the loop: pass on to the client, if there is one. Without a client nothing can be received.
 */
size_t chardev_can_receive(struct chardev *chr);
void chardev_receive(struct chardev *chr, const uint8_t *buf, size_t len);
void chardev_writable(struct chardev *chr);
/** The other end has come or gone: notes it in chr->open and tells the client, if that is news. */
void chardev_set_open(struct chardev *chr, bool open);

/**
 * Look up a chardev by id for a device's "chardev" option and take it: -ENODEV, -EBUSY if another device has it. The client's callbacks may
 * come before this returns; if the backend is open, connected() does. Not from a loop's callback.
 */
int chardev_take(struct vm *vm, const char *id, const struct chardev_client_ops *ops, void *client,
		 struct chardev **chr, struct hako_error *err);
/** The connection that socket() has given is at its end: connect or listen again, as the options say. Any thread. */
void chardev_hangup(struct chardev *chr);
/** Give it back: no callback comes once this has returned. NULL is allowed. */
void chardev_release(struct chardev *chr);

/**
 * The command line's short form: stdio, pty, null, none, file:PATH, unix:PATH[,server=on,wait=off],
 * tcp:HOST:PORT[,server=on,wait=off], as --console takes. Makes a chardev of id @id; "none" is "null", and stdio has signal=off
 * unless it says otherwise.
 */
int chardev_new_from_text(struct vm *vm, const char *id, const char *text, struct hako_error *err);

#define CHAR_PORT_SIZE 4096 /* of each direction's buffer */

/*
 * A line between vCPU threads and a chardev. Output is buffered and written by the loop, input waits until the device takes it. Without a
 * chardev (chr NULL) output is lost and there is no input.
 */
struct char_port {
	struct chardev *chr;
	struct loop *loop;
	pthread_mutex_t lock; /* leaf: guards the buffers */
	uint8_t out[CHAR_PORT_SIZE], in[CHAR_PORT_SIZE];
	uint32_t out_head, out_len, in_head, in_len;
	bool out_stalled; /* char_port_put() has refused a byte: changed() follows */
	bool out_armed; /* the loop knows of output: by message, by timer, or waits for the backend */
	bool in_stalled; /* the backend was told to wait */
	bool paused;	 /* nothing moves between the buffers and the backend. In the loop */
	struct loop_msg out_msg, in_msg;
	struct loop_timer out_timer;
	/* Input has come, or output space: the device takes its register lock and updates its state. Loop thread, port's lock not held. */
	void (*changed)(void *opaque);
	void *opaque;
};

int char_port_init(struct char_port *port, struct vm *vm, const char *chardev_id,
		   void (*changed)(void *opaque), void *opaque, struct hako_error *err);
void char_port_free(struct char_port *port);
/** One byte out; false if the buffer is full. Any thread. */
bool char_port_put(struct char_port *port, uint8_t byte);
bool char_port_full(struct char_port *port);
/** One byte in; -1 if there is none. Any thread. */
int char_port_get(struct char_port *port);
bool char_port_has_input(struct char_port *port);
/** Write out what is buffered, as far as the backend takes it at once (at pause and end). In the loop. */
void char_port_drain(struct char_port *port);
/** Drain, then leave the buffers as they are until resumed. vCPUs are paused. Any thread that is not a loop. */
void char_port_pause(struct char_port *port);
void char_port_resume(struct char_port *port);
/** What is in the buffers, for STATE_FIELD_STRUCT. */
extern const struct state_table char_port_state;

#endif
