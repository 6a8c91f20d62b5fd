// The peer of the benchmark: go-control-plane's linear cache for the endpoints of one service, and its snapshot cache
// for the cluster, listener and route, which never change. Takes the same flags and speaks the same control protocol
// as bench/xds-server.ts.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	service          = "bench"
	cells            = 3
	instancesPerCell = 10
)

// oneForAll gives every proxy the same snapshot.
type oneForAll struct{}

func (oneForAll) ID(*core.Node) string { return "all" }

func assignment(weights []uint32) *endpoint.ClusterLoadAssignment {
	made := &endpoint.ClusterLoadAssignment{
		ClusterName: service,
		Policy:      &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(100)},
	}
	for cell := range cells {
		if cell >= len(weights) || weights[cell] == 0 {
			continue
		}
		group := &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: "understudy", Zone: "local", SubZone: fmt.Sprintf("cell-%d", cell)},
			LoadBalancingWeight: wrapperspb.UInt32(weights[cell]),
		}
		for instance := range instancesPerCell {
			group.LbEndpoints = append(group.LbEndpoints, &endpoint.LbEndpoint{HostIdentifier: &endpoint.LbEndpoint_Endpoint{
				Endpoint: &endpoint.Endpoint{Address: &core.Address{Address: &core.Address_SocketAddress{
					SocketAddress: &core.SocketAddress{
						Address:       fmt.Sprintf("10.0.%d.%d", cell, instance+1),
						PortSpecifier: &core.SocketAddress_PortValue{PortValue: 8080},
					},
				}}},
			}})
		}
		made.Endpoints = append(made.Endpoints, group)
	}
	return made
}

func settled() (*cache.Snapshot, error) {
	return cache.NewSnapshot("1", map[resource.Type][]types.Resource{
		resource.ClusterType: {&cluster.Cluster{
			Name:                 service,
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			EdsClusterConfig: &cluster.Cluster_EdsClusterConfig{EdsConfig: &core.ConfigSource{
				ResourceApiVersion:    core.ApiVersion_V3,
				ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
			}},
		}},
		resource.ListenerType: {&listener.Listener{Name: service}},
		resource.RouteType:    {&route.RouteConfiguration{Name: service}},
	})
}

func mutualTLS(ca, cert, key string) (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}), nil
}

func run() error {
	ca := flag.String("ca", "", "authority of the clients")
	cert := flag.String("cert", "", "certificate of the server")
	key := flag.String("key", "", "its key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	snapshots := cache.NewSnapshotCache(true, oneForAll{}, nil)
	snapshot, err := settled()
	if err != nil {
		return err
	}
	if err := snapshots.SetSnapshot(ctx, "all", snapshot); err != nil {
		return err
	}
	endpoints := cache.NewLinearCache(resource.EndpointType)
	if err := endpoints.UpdateResource(service, assignment([]uint32{10_000})); err != nil {
		return err
	}
	which := func(typeURL string) string {
		if typeURL == resource.EndpointType {
			return "linear"
		}
		return "snapshot"
	}
	caches := &cache.MuxCache{
		Classify:      func(r *cache.Request) string { return which(r.GetTypeUrl()) },
		ClassifyDelta: func(r *cache.DeltaRequest) string { return which(r.GetTypeUrl()) },
		Caches:        map[string]cache.Cache{"linear": endpoints, "snapshot": snapshots},
	}

	secured, err := mutualTLS(*ca, *cert, *key)
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer(
		grpc.Creds(secured),
		grpc.MaxConcurrentStreams(1_000_000),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
	)
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, server.NewServer(ctx, caches, nil))
	proxies, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			var posted struct {
				Weights []uint32 `json:"weights"`
			}
			err := json.NewDecoder(r.Body).Decode(&posted)
			if err == nil {
				err = endpoints.UpdateResource(service, assignment(posted.Weights))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		fmt.Fprint(w, "{}")
	})
	go func() { _ = http.Serve(control, handler) }()
	go func() {
		<-ctx.Done()
		grpcServer.Stop()
	}()
	fmt.Printf(`{"port":%d,"controlPort":%d,"pid":%d}`+"\n",
		proxies.Addr().(*net.TCPAddr).Port, control.Addr().(*net.TCPAddr).Port, os.Getpid())
	return grpcServer.Serve(proxies)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
